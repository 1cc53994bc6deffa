"""Environments of Gymnasium: a person's own, vectors of them, and agents of the package in them."""

import dataclasses
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium", reason="needs Gymnasium: pip install 'metatower[gymnasium]'")

from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402
from tests.adapters.doors import Doors, Recorder, Runner  # noqa: E402

import metatower  # noqa: E402
from metatower.adapters.gymnasium import HostTrial, adapt  # noqa: E402
from metatower.core.errors import UserError  # noqa: E402
from metatower.envs import BernoulliBandit, Box, Discrete, Environment, Step, Trial  # noqa: E402
from metatower.learners.acting import play  # noqa: E402
from metatower.learners.bandit_agents import Greedy  # noqa: E402
from metatower.learners.rl2 import rl2  # noqa: E402


def test_an_agent_learns_in_an_environment_of_ones_own():
    env = Doors(door=1)
    adapted = adapt(Greedy(3), env, episodes=20, seed=3)
    assert adapted.returns.shape == (20, 1)
    assert (adapted.returns[5:] == 1).all()  # who has found the door keeps to it
    assert env.resets == 20
    assert [adapted.act(np.zeros(0), reward=1.0, done=True) for _ in range(3)] == [1, 1, 1]


def test_rewards_and_ends_reach_the_agent_and_resets_are_the_trials():
    env = Doors(length=4, seen=(2,))
    adapted = adapt(Recorder(), env, episodes=2)
    _, rewards, done, action = adapted.state.memory
    assert env.tried == [0, 1, 2, 0, 1, 2, 0, 1]
    assert rewards[0, :8].tolist() == [0, 0, 0, 1, 0, 0, 1, 0]
    assert done[0, :8].tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    assert action[0, 1:8].tolist() == [0, 1, 2, 0, 1, 2, 0]
    np.testing.assert_array_equal(adapted.returns[:, 0], [1, 1])
    assert adapted.seen.done.tolist() == [1]
    adapted.act(np.zeros(2))
    assert adapted.state.memory[2][0, 8] == 1  # the end of the adaptation is seen with the next observation


def test_a_host_trial_is_the_twin_of_a_trial():
    class Bandit(gymnasium.Env):
        def __init__(self, p):
            self.observation_space, self.action_space = gymnasium.spaces.Box(0, 1, (0,)), gymnasium.spaces.Discrete(2)
            self.p = p

        def reset(self, *, seed=None, options=None):
            return np.zeros(0, np.float32), {}

        def step(self, action):
            return np.zeros(0, np.float32), float(self.p[action]), True, False, {}

    task = jnp.array([0.0, 1.0])  # certain outcomes, the same in both
    here, there = Trial(BernoulliBandit(2), episodes=3), HostTrial(Bandit([0.0, 1.0]), episodes=3)
    (state, seen), host = here.start(jax.random.key(0), task), there.start()
    for action in (0, 1, 1):
        for ours, theirs in zip(jax.tree.leaves(seen), jax.tree.leaves(host), strict=True):
            np.testing.assert_array_equal(ours, theirs[0])
        state, seen, outcome = here.step(jax.random.key(1), state, jnp.array(action), task)
        host, after = there.step(np.array([action]))
        for ours, theirs in zip(jax.tree.leaves(outcome), jax.tree.leaves(after), strict=True):
            np.testing.assert_array_equal(ours, theirs[0])
    with pytest.raises(UserError, match="call `start`"):
        there.step(np.array([0]))


def test_rl2_learns_on_the_host_what_it_learns_in_jax():
    class Line(gymnasium.Env):
        """`Corridor` once more, for people who know no JAX."""

        def __init__(self):
            self.observation_space, self.action_space = gymnasium.spaces.Box(-9, 9, (1,)), gymnasium.spaces.Discrete(2)
            self.taken = []

        def reset(self, *, seed=None, options=None):
            self.place = 0.0
            return np.array([0.0], np.float32), {}

        def step(self, action):
            self.taken.append(int(action))
            self.place += 1 if action == 1 else -0.5
            return np.array([self.place], np.float32), self.place, self.place > 1.2, False, {}

    class Corridor(Environment):
        horizon: int = eqx.field(static=True, default=5)

        @property
        def observation_shape(self):
            return (1,)

        @property
        def actions(self):
            return Discrete(2)

        def sample_task(self, key):
            return jnp.zeros(())

        def reset(self, key, task):
            return jnp.zeros(()), jnp.zeros(1)

        def step(self, key, state, action, task):
            state = state + jnp.where(action == 1, 1.0, -0.5)
            return state, Step(state[None], state, state > 1.2, jnp.asarray(False))

    agent = dataclasses.replace(rl2(Corridor(), key=jax.random.key(10), size=6, hidden=8), greedy=True)
    played = play(agent, Trial(Corridor(), episodes=6), jnp.zeros(()), key=jax.random.key(0))
    line = Line()
    adapted = adapt(agent, gymnasium.wrappers.TimeLimit(line, 5), episodes=6)
    assert line.taken == played.action[played.live].tolist()
    assert len(set(line.taken)) == 2
    assert 6 < len(line.taken) < 30  # some episodes end by themselves
    np.testing.assert_allclose(played.outcome.reward.sum(), adapted.returns.sum(), rtol=1e-5)


def test_the_shipped_agent_learns_bandits_of_somebody_else():
    class Slots(gymnasium.Env):
        def __init__(self, chances):
            self.chances = chances
            self.observation_space = gymnasium.spaces.Box(0, 1, (0,))
            self.action_space = gymnasium.spaces.Discrete(5)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(0, np.float32), {}

        def step(self, action):
            return np.zeros(0, np.float32), float(self.np_random.random() < self.chances[action]), True, False, {}

    chances = np.random.default_rng(0).random((500, 5))
    env = SyncVectorEnv([lambda p=p: Slots(p) for p in chances], autoreset_mode=AutoresetMode.DISABLED)
    agent = metatower.load(Path(metatower.__file__).parent / "agents" / "rl2-bandit-10-5")
    gained = adapt(agent, env, episodes=10).returns
    assert gained.shape == (10, 500)
    assert gained.sum(axis=0).mean() > 6.2  # 6.6 expected, standard error 0.1; without learning 5.0
    assert gained[-3:].mean() > gained[0].mean() + 0.1


def test_lanes_of_a_vector_end_by_themselves():
    makers = [lambda n=n: Doors(door=n, length=n + 1, seen=(1,)) for n in range(3)]
    env = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    adapted = adapt(Recorder(), env, episodes=3)
    assert adapted.returns.shape == (3, 3)
    assert [len(each.tried) for each in env.envs] == [9, 9, 9]  # all go on until the longest trial is over
    done = adapted.state.memory[2]
    assert done[0, :4].tolist() == [1, 1, 1, 0]  # a lane that is over remembers nothing more
    assert done[1, :7].tolist() == [1, 0, 1, 0, 1, 0, 0]
    assert done[2, :9].tolist() == [1, 0, 0, 1, 0, 0, 1, 0, 0]
    assert adapted.returns[:, 2].tolist() == [1, 1, 1]
    assert adapted.act(np.zeros((3, 1))).shape == (3,)


def test_vectors_that_reset_themselves_are_refused():
    with pytest.raises(UserError, match=r"AutoresetMode\.DISABLED"):
        HostTrial(SyncVectorEnv([Doors]), episodes=1)


def test_actions_are_given_as_the_environment_takes_them():
    env = Doors(start=5, door=6)
    assert adapt(Greedy(3), env, episodes=12).returns[6:].all()
    assert set(env.tried) <= {5, 6, 7}
    trial = HostTrial(gymnasium.make("Pendulum-v1"), episodes=1)
    assert trial.actions == Box((-2.0,), (2.0,), (1,))
    trial.start(0)
    seen, _ = trial.step(np.array([[9.0]]))
    assert seen.action.tolist() == [[9.0]]  # as chosen; the environment is given 2


def test_observations_of_a_discrete_space_are_one_hot():
    trial = HostTrial(gymnasium.make("FrozenLake-v1", is_slippery=False), episodes=1)
    assert trial.observation_shape == (16,)
    assert trial.actions == Discrete(4)
    assert trial.start(0).observation[0].tolist() == [1.0] + [0.0] * 15
    seen, _ = trial.step(np.array([1]))
    assert int(jnp.argmax(seen.observation)) == 4


def test_the_same_seed_is_the_same_adaptation():
    def run(seed):
        return adapt(Runner(jnp.ones((1, 3)), 1), gymnasium.make("Pendulum-v1"), episodes=1, seed=seed).returns

    assert run(0) == run(0) != run(1)
