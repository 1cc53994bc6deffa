import jax
import jax.numpy as jnp
import numpy as np

from metatower.envs import BernoulliBandit, GridNavi, Told, Trial
from metatower.learners import rl2
from metatower.learners.acting import play

KEY = jax.random.key(0)


def test_the_task_is_seen_at_every_step_and_the_world_is_the_same():
    hidden = GridNavi(horizon=4)
    told = Told(hidden)
    task = told.sample_task(KEY)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), task, hidden.sample_task(KEY)))
    shown = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(task)])
    (state, first), (bare, seen) = told.reset(KEY, task), hidden.reset(KEY, task)
    for action in (1, 3, 1):
        np.testing.assert_allclose(first, np.concatenate([np.ravel(seen), shown]))
        assert first.shape == told.observation_shape
        state, step = told.step(KEY, state, jnp.array(action), task)
        bare, other = hidden.step(KEY, bare, jnp.array(action), task)
        assert step.reward == other.reward
        first, seen = step.observation, other.observation


def test_an_agent_plays_where_it_is_told_the_task():
    told = Told(BernoulliBandit(3))
    agent = rl2(told, key=KEY, size=4)
    played = play(agent, Trial(told, episodes=2), told.sample_task(KEY), key=KEY)
    np.testing.assert_allclose(played.seen.observation, np.tile(told.sample_task(KEY), (3, 1)))
