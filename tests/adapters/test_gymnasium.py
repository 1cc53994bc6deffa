"""Environments of Gymnasium: a person's own, broken ones, and vectors of them."""

import dataclasses
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium", reason="needs Gymnasium: pip install 'metatower[gymnasium]'")

from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402

import metatower  # noqa: E402
from metatower.adapters.gymnasium import HostTrial, adapt  # noqa: E402
from metatower.core.errors import UserError  # noqa: E402
from metatower.envs import BernoulliBandit, Box, Discrete, Environment, Seen, Step, Trial, World  # noqa: E402
from metatower.learners.acting import Agent, play  # noqa: E402
from metatower.learners.bandit_agents import Greedy  # noqa: E402
from metatower.learners.rl2 import rl2  # noqa: E402


class Doors(gymnasium.Env):
    """One of three doors pays 1; an episode is `length` tries. Nothing of the package is in it."""

    def __init__(self, door=2, length=1, start=0, seen=(0,)):
        self.observation_space = gymnasium.spaces.Box(-1, 1, seen, np.float64)
        self.action_space = gymnasium.spaces.Discrete(3, start=start)
        self.door, self.length, self.resets, self.tried = door, length, 0, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.resets = 0, self.resets + 1
        return self.shown(), {}

    def shown(self):
        return np.full(self.observation_space.shape, self.resets / 100)

    def step(self, action):
        self.time += 1
        self.tried.append(int(action))
        return self.shown(), float(action == self.door), False, self.time >= self.length, {}


class Recorder(Agent):
    """Tries the doors in turn, and keeps what it has seen of rewards and ends."""

    actions: int = eqx.field(static=True, default=3)

    def begin(self, *, key):
        return jnp.zeros((), jnp.int32), jnp.zeros(20), jnp.zeros(20), jnp.zeros(20)

    def decide(self, memory, seen, *, key):
        time, rewards, done, action = memory
        put = lambda x, y: x.at[time].set(y)  # noqa: E731
        after = time + 1, put(rewards, seen.reward), put(done, seen.done), put(action, jnp.argmax(seen.action))
        return after, time % 3, {}


class Runner(Agent):
    """Acts in a box; looks at observations of four numbers."""

    weights: jax.Array
    actions: int = eqx.field(static=True, default=2)

    def begin(self, *, key):
        return None

    def decide(self, memory, seen, *, key):
        return memory, self.weights @ seen.observation, {}


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


# One clear error each.


class Broken(Doors):
    def __init__(self, how, when):
        super().__init__(length=3, seen=(2,))
        self.how, self.when = how, when

    def reset(self, **how):
        seen = super().reset(**how)
        return self.how(self, seen) if self.when == "reset" else seen

    def step(self, action):
        step = super().step(action)
        return self.how(self, step) if self.when == "step" and self.time == 2 else step


def shape(env, step):
    return (np.zeros(3), *step[1:])


def no_number(env, step):
    return (np.full(2, np.nan), *step[1:])


def no_reward(env, step):
    return (step[0], float("nan"), *step[2:])


def raises(env, step):
    raise KeyError("wheel")


@pytest.mark.parametrize(
    ("how", "when", "error"),
    [
        (shape, "step", r"Broken shows an observation of shape \(3,\) in its step, .* says \(2,\)"),
        (shape, "reset", r"Broken shows an observation of shape \(3,\) in its reset"),
        (no_number, "step", "Broken shows nan in its step"),
        (no_reward, "step", "Broken gave the reward nan"),
        (lambda env, step: (step[0], 1e39, *step[2:]), "step", r"the reward inf, which is no number \(or none that fl"),
        (lambda env, step: (np.full(2, 1e39), *step[1:]), "step", r"shows inf in its step, which is no number \(or"),
        (lambda env, step: ([[1.0], [1.0, 2.0]], *step[1:]), "step", "shows in its step what is no array of numbers"),
        (raises, "step", "Broken raised KeyError: 'wheel' in its step. Try it"),
        (raises, "reset", "Broken raised KeyError: 'wheel' in its reset"),
        (
            lambda env, step: (*step[:2], "no", False, {}),
            "step",
            "Broken raised TypeError: expected terminated as a bool",
        ),
        (lambda env, step: 1 / [][0], "step", "IndexError"),
        (lambda env, step: step[:4], "step", "expected it to return an observation, a reward, .* a dict, got 4 things"),
        (lambda env, step: (step[0], None, *step[2:]), "step", "expected a number as the reward, got None"),
    ],
)
def test_a_broken_environment_is_one_clear_error(how, when, error):
    with pytest.raises(UserError, match=error):
        adapt(Recorder(), Broken(how, when))


def test_a_broken_vector_is_one_clear_error_too():
    for how, error in (
        (shape, "Broken|SyncVectorEnv"),
        (raises, "raised KeyError"),
        (no_reward, "gave the reward nan"),
    ):
        env = SyncVectorEnv([lambda how=how: Broken(how, "step")], autoreset_mode=AutoresetMode.DISABLED)
        with pytest.raises(UserError, match=error):
            adapt(Recorder(), env)


def test_a_reset_of_the_old_kind_is_told():
    class Old(Doors):
        def reset(self, **how):
            return super().reset(**how)[0]

    with pytest.raises(UserError, match=r"expected it to return an observation and a dict, got a ndarray in its reset"):
        adapt(Recorder(), Old())


def test_what_a_lane_shows_after_its_trial_counts_as_little_in_a_reset():
    class Ending(Doors):
        """Shows no numbers once its only episode is over."""

        ended = False

        def reset(self, **how):
            shown, about = super().reset(**how)
            return (np.full_like(shown, np.nan) if self.ended else shown), about

        def step(self, action):
            step, before = super().step(action), self.ended
            self.ended = self.ended or step[3]
            return (np.full_like(step[0], np.nan) if before else step[0], *step[1:])

    lanes = [lambda: Ending(length=1, seen=(1,)), lambda: Doors(length=4, seen=(1,))]
    adapted = adapt(Recorder(), SyncVectorEnv(lanes, autoreset_mode=AutoresetMode.DISABLED), episodes=1)
    np.testing.assert_array_equal(adapted.returns, [[0.0, 1.0]])  # doors 0, 1, 2, 0, of which the third pays


def test_an_episode_without_an_end_is_cut_off():
    endless = Doors(length=10**9)
    adapted = adapt(Recorder(), endless, episodes=2, horizon=3)
    assert len(endless.tried) == 6
    np.testing.assert_array_equal(adapted.returns, [[1.0], [1.0]])


def test_an_episode_that_should_have_ended_by_itself_is_told(monkeypatch):
    monkeypatch.setattr("metatower.adapters.gymnasium.ENDLESS", 20)
    with pytest.raises(UserError, match=r"Doors has not ended its episode after 20 steps\. Say how long"):
        adapt(Recorder(), Doors(length=10**9))
    assert adapt(Recorder(), Doors(length=20), episodes=2).returns.shape == (2, 1)


def test_an_agent_adapts_where_its_own_method_is_asked():
    agent = rl2(BernoulliBandit(3), key=jax.random.key(0), size=4)
    assert agent.adapt(Doors(), episodes=2, seed=1).returns == pytest.approx(
        adapt(agent, Doors(), episodes=2, seed=1).returns
    )
    with pytest.raises(UserError, match=r"Expected a gymnasium\.Env"):
        agent.adapt("CartPole-v1")
    with pytest.raises(TypeError, match="takes `key` alone"):
        agent.adapt(World(BernoulliBandit(3), jnp.ones(3)), episodes=2, key=jax.random.key(0))


def test_after_its_first_action_an_agent_must_be_told_what_the_last_one_brought():
    adapted = adapt(Recorder(), Doors())
    adapted.act(np.zeros(0))
    with pytest.raises(UserError, match=r"Say what the last action brought: act\(observation, reward, done\)"):
        adapted.act(np.zeros(0))
    adapted.act(np.zeros(0), 0.5)


def test_what_a_lane_does_after_its_trial_does_not_count(monkeypatch):
    class Fading(Doors):
        def step(self, action):
            shown, reward, terminated, _, about = super().step(action)
            shown = shown if self.time <= self.length else np.full(2, np.nan)
            return shown, reward, terminated, self.time == self.length, about

    monkeypatch.setattr("metatower.adapters.gymnasium.ENDLESS", 12)  # the first lane goes on for 16 steps
    makers = [lambda n=n: Fading(length=n, seen=(2,)) for n in (1, 9)]
    env = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    assert adapt(Recorder(), env, episodes=2).returns.shape == (2, 2)


def test_numbered_observations_that_cannot_be_are_told():
    for shown in (7, -1, 0, 2.5):
        env = Doors()
        env.observation_space = gymnasium.spaces.Discrete(5, start=1)
        env.shown = lambda shown=shown: np.asarray(shown)
        with pytest.raises(UserError, match=f"shows {shown} in its reset, .* the integers from 1 to 5"):
            adapt(Recorder(), env)


def test_a_memory_that_has_diverged_is_told_though_its_actions_are_numbers():
    env = Doors()
    agent = rl2(BernoulliBandit(3), key=jax.random.key(0), size=4)
    broken = jax.tree.map(lambda x: x * jnp.nan if eqx.is_inexact_array(x) else x, agent)
    with pytest.raises(UserError, match="memory holds what is no number"):
        adapt(broken, env)
    adapted = adapt(agent, env)
    adapted.act(np.zeros(0))
    with pytest.raises(UserError, match="Expected the reward of the last action as a number, got nan"):
        adapted.act(np.zeros(0), reward=float("nan"))


@pytest.mark.parametrize(
    ("env", "options", "error"),
    [
        ("CartPole-v1", {}, r"Expected a gymnasium.Env .* got str. Make one with gymnasium.make"),
        (Doors(), {"episodes": 0}, "Expected episodes as an integer of at least 1, got 0"),
        (Doors(), {"horizon": 0}, "Expected horizon as an integer of at least 1, got 0"),
    ],
)
def test_what_is_no_environment_or_number_is_told(env, options, error):
    with pytest.raises(UserError, match=error):
        adapt(Recorder(), env, **options)


def test_learners_that_do_not_act_are_told():
    with pytest.raises(UserError, match=r"Expected an agent with `start` and `act`, such as RL²; got Descend"):
        adapt(metatower.load(Path(metatower.__file__).parent / "agents" / "maml-navigation"), Doors())


def test_an_agent_that_has_diverged_is_told():
    with pytest.raises(UserError, match="The agent's action is nan"):
        adapt(Runner(jnp.full((1, 3), jnp.nan), 1), gymnasium.make("Pendulum-v1"))


def test_agents_that_do_not_fit_are_told():
    with pytest.raises(UserError, match="The agent has 5 numbers for an action; the environment Doors has obs"):
        adapt(Greedy(5), Doors())
    with pytest.raises(UserError, match=r"cannot act on observations of shape \(3,\) and actions .* trained in an"):
        adapt(Runner(jnp.ones((1, 4)), 1), gymnasium.make("Pendulum-v1"))
    with pytest.raises(UserError, match=r"actions are int32 of shape \(\), but the environment has Box"):
        adapt(Greedy(1), gymnasium.make("Pendulum-v1"))


@pytest.mark.parametrize("space", [gymnasium.spaces.MultiDiscrete([2, 2]), gymnasium.spaces.Box(0, 9, (1,), np.int64)])
def test_spaces_that_no_agent_acts_in(space):
    env = Doors()
    env.action_space = space
    with pytest.raises(UserError, match="Discrete or floating-point Box"):
        HostTrial(env, episodes=1)
    env = Doors()
    env.observation_space = gymnasium.spaces.Dict(a=gymnasium.spaces.Discrete(2))
    with pytest.raises(UserError, match="FlattenObservation"):
        HostTrial(env, episodes=1)


def test_what_is_seen_has_an_axis_of_lanes():
    seen = HostTrial(Doors(seen=(2, 2)), episodes=1).start()
    assert isinstance(seen, Seen)
    assert seen.observation.shape == (1, 2, 2)
    assert (seen.action.shape, seen.reward.shape, seen.done.tolist()) == ((1, 3), (1,), [1.0])
