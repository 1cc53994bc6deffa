"""What an agent sees of a trial, when things are reset, and when not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.core.keys import fork
from metatower.envs import BernoulliBandit, Box, Discrete, Environment, Seen, Step, Trial, World, Worlds
from metatower.learners.acting import Agent, play

KEY = jax.random.key(0)


class Corridor(Environment):
    """Go right by 0 or 1 from a place drawn at reset; beyond `task` it is over. Pays the number of the step."""

    horizon: int = eqx.field(static=True, default=4)

    @property
    def observation_shape(self):
        return (2,)

    @property
    def actions(self):
        return Discrete(2)

    def sample_task(self, key):
        return jax.random.uniform(key, minval=1.5, maxval=2.5)

    def reset(self, key, task):
        place = jax.random.uniform(key)
        return (place, jnp.zeros(())), jnp.stack([place, task])

    def step(self, key, state, action, task):
        place, time = state[0] + action, state[1] + 1
        observation = jnp.stack([place, task])
        return (place, time), Step(observation, time, place > task, jnp.asarray(False))


class Scripted(Agent):
    """Does what a list says, by the number of actions so far."""

    script: tuple[int, ...] = eqx.field(static=True)
    actions: int = eqx.field(static=True, default=2)

    def begin(self, *, key):
        return jnp.zeros((), jnp.int32)

    def decide(self, memory, seen, *, key):
        return memory + 1, jnp.array(self.script)[memory], {}


def run(script, environment=None, **trial):
    return play(Scripted(script), Trial(environment or Corridor(), **trial), jnp.array(1.9), key=KEY)


def test_the_first_sight_of_a_trial():
    trial = Trial(Corridor(), episodes=2)
    state, seen = trial.start(KEY, jnp.array(2.0))
    assert 0 <= seen.observation[0] < 1
    np.testing.assert_array_equal(seen.action, [0, 0])
    assert (seen.reward, seen.done, state.over, state.episodes) == (0, 1, False, 0)
    assert seen.flat().shape == (Seen.size(Corridor()),) == (2 + 2 + 1 + 1,)
    np.testing.assert_array_equal(seen.flat()[1:], [2.0, 0, 0, 0, 1])


def test_the_last_reward_and_done_of_an_episode_come_with_the_first_observation_of_the_next():
    played = run((1, 0, 1, 0, 0, 0, 0), episodes=2)  # ends by itself at step 3: place between 2 and 3
    assert played.outcome.terminated[:4].tolist() == [False, False, True, False]
    assert played.outcome.reward[:4].tolist() == [1, 2, 3, 1]
    assert played.seen.reward[:5].tolist() == [0, 1, 2, 3, 1]
    assert played.seen.done[:5].tolist() == [1, 0, 0, 1, 0]
    assert played.seen.action[:5].tolist() == [[0, 0], [0, 1], [1, 0], [0, 1], [1, 0]]
    assert 0 <= played.seen.observation[3, 0] < 1  # of the new episode
    assert 2 <= played.outcome.observation[2, 0] < 3  # of the old one, for bootstrapping and for people


def test_every_episode_begins_anew_in_the_same_task():
    played = run((0,) * 12, episodes=3)
    first = played.seen.observation[jnp.array([0, 4, 8])]
    assert len(set(first[:, 0].tolist())) == 3
    np.testing.assert_array_equal(played.seen.observation[:, 1], jnp.full(13, 1.9))


def test_the_horizon_truncates_and_does_not_terminate():
    played = run((0,) * 8, episodes=2)
    assert played.outcome.truncated.tolist() == [False, False, False, True] * 2
    assert not played.outcome.terminated.any()
    both = run((0, 0, 1, 1), episodes=1)  # terminates in the very last step
    assert (bool(both.outcome.terminated[3]), bool(both.outcome.truncated[3])) == (True, False)


def test_a_trial_is_over_with_its_last_episode_and_nothing_counts_after_it():
    trial, task = Trial(Corridor(), episodes=2), jnp.array(1.9)
    state, _ = trial.start(KEY, task)
    seen = []
    for key in fork(KEY, 10):
        state, _, outcome = trial.step(key, state, jnp.array(0), task)
        seen.append((float(outcome.reward), bool(outcome.over)))
    assert (
        seen
        == [(1, False), (2, False), (3, False), (4, False), (1, False), (2, False), (3, False), (4, True)]
        + [(0, True)] * 2
    )


def test_a_trial_of_steps_ends_wherever_it_is():
    trial = Trial(Corridor(), steps=6)
    assert trial.length == 6
    played = run((0,) * 6, steps=6)
    assert played.outcome.over.tolist() == [False] * 5 + [True]
    assert played.outcome.reward.tolist() == [1, 2, 3, 4, 1, 2]


def test_together_or_alone_a_trial_is_the_same():
    environment = Corridor()
    agent, trial = Scripted((0, 1, 0, 0, 1, 1, 0, 0)), Trial(environment, episodes=2)

    def one(key):
        return play(agent, trial, environment.sample_task(key), key=key)

    keys = jax.random.split(KEY, 5)
    together = jax.jit(jax.vmap(one))(keys)
    for i, key in enumerate(keys[:3]):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6), together, jax.jit(one)(key))


def test_a_longer_trial_begins_like_a_shorter_one():
    short, long = (run((0, 1) * 8, episodes=n) for n in (1, 3))
    np.testing.assert_array_equal(short.outcome.observation, long.outcome.observation[: len(short.outcome.reward)])


def test_the_luck_of_the_world_does_not_depend_on_who_plays():
    task, trial = jnp.array([0.5, 0.5]), Trial(BernoulliBandit(2), episodes=50)
    one, other = (play(Scripted(script), trial, task, key=KEY).outcome.reward for script in ((0,) * 50, (1,) * 50))
    np.testing.assert_array_equal(one, other)


def test_worlds_are_learned_in_and_judged_in_alike():
    task = Worlds(BernoulliBandit(3)).sample(KEY)
    assert isinstance(task.support, World)
    np.testing.assert_array_equal(task.support.task, task.query.task)
    other = Worlds(BernoulliBandit(3)).sample(jax.random.key(1))
    assert jnp.any(task.support.task != other.support.task)


@pytest.mark.parametrize("how", [{}, {"episodes": 0}, {"episodes": 2, "steps": 3}, {"steps": -1}])
def test_trials_that_cannot_be(how):
    with pytest.raises(ValueError, match="either episodes or steps"):
        Trial(Corridor(), **how)


def test_spaces():
    assert Discrete(3).size == 3
    np.testing.assert_array_equal(Discrete(3).encode(jnp.array(1)), [0, 1, 0])
    drawn = jax.vmap(Discrete(3).sample)(jax.random.split(KEY, 100))
    assert set(drawn.tolist()) == {0, 1, 2}
    box = Box((-1.0, 0.0), (1.0, 4.0), (2,))
    np.testing.assert_array_equal(box.clip(jnp.array([-3.0, 3.0])), [-1.0, 3.0])
    drawn = jax.vmap(box.sample)(jax.random.split(KEY, 200))
    assert (drawn.min(0) >= jnp.array([-1, 0])).all()
    assert (drawn.max(0) > jnp.array([0.9, 3.5])).all()
    assert box.encode(jnp.array([5.0, 1.0])).tolist() == [5.0, 1.0]  # as chosen
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Discrete(0)
