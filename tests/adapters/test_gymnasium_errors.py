"""Environments of Gymnasium that are broken, and what does not fit: one clear error each, nothing counted wrongly."""

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
from metatower.envs import BernoulliBandit, Seen, World  # noqa: E402
from metatower.learners.bandit_agents import Greedy  # noqa: E402
from metatower.learners.rl2 import rl2  # noqa: E402


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
