import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.envs import BernoulliBandit, Box, GridNavi, RandomMDP, Solvable, Told, Trial, told
from metatower.learners import rl2
from metatower.learners.acting import play

KEY = jax.random.key(0)


def test_the_task_is_seen_at_every_step_and_the_world_is_the_same():
    hidden = GridNavi(horizon=4)
    shown_too = Told(hidden)
    task = shown_too.sample_task(KEY)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), task, hidden.sample_task(KEY)))
    shown = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(task)])
    (state, first), (bare, seen) = shown_too.reset(KEY, task), hidden.reset(KEY, task)
    for action in (1, 3, 1):
        np.testing.assert_allclose(first, np.concatenate([np.ravel(seen), shown]))
        assert first.shape == shown_too.observation_shape
        state, step = shown_too.step(KEY, state, jnp.array(action), task)
        bare, other = hidden.step(KEY, bare, jnp.array(action), task)
        assert step.reward == other.reward
        first, seen = step.observation, other.observation


def test_an_agent_plays_where_it_is_told_the_task():
    world = told(BernoulliBandit(3))
    agent = rl2(world, key=KEY, size=4)
    played = play(agent, Trial(world, episodes=2), world.sample_task(KEY), key=KEY)
    np.testing.assert_allclose(played.seen.observation, np.tile(world.sample_task(KEY), (3, 1)))


def test_the_optimum_is_that_of_the_hidden_task():
    hidden = RandomMDP(3, 2, horizon=4)
    world, task = told(hidden), hidden.sample_task(KEY)
    assert isinstance(world, Solvable)
    assert not isinstance(told(GridNavi()), Solvable)
    state = hidden.reset(KEY, task)[0]
    for environment in (hidden, world):
        short = environment.shortfall(environment.solve(task), state, jnp.array(1))
        np.testing.assert_allclose(short, hidden.solve(task)[1, 0])


class Never(GridNavi):
    """Its episodes are over before they begin."""

    def __init__(self):
        super().__init__()
        self.horizon = 0


def test_boxes_and_horizons_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="expected low as a number or 2 of them"):
        Box((0.0, 0.0, 0.0), 1.0, (2,))
    with pytest.raises(ValueError, match="expected an environment with a horizon of at least 1"):
        Trial(Never(), episodes=1)
