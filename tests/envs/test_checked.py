"""Slips in an environment of one's own are one sentence about it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from metatower import sgd
from metatower.core.errors import UserError
from metatower.envs import Discrete, Environment, Worlds, check_environment
from metatower.envs.protocol import running
from metatower.evaluation.trials import judge_trials
from metatower.learners import PPO, rl2
from metatower.learners.informed import Random
from metatower.training.failure import NonFinite
from metatower.training.loop import train


class Lamp(Environment):
    """Two buttons, one of which is wired; each field can be given wrongly."""

    first: Any = eqx.field(static=True, default=None)
    wrong: Any = eqx.field(static=True, default=None)
    horizon: int = eqx.field(static=True, default=2)
    buttons: Any = eqx.field(static=True, default=Discrete(2))

    @property
    def observation_shape(self):
        return (1,)

    @property
    def actions(self):
        return self.buttons

    def sample_task(self, key):
        return jax.random.randint(key, (), 0, 2)

    def reset(self, key, task):
        return (jnp.zeros(()), jnp.zeros(1)) if self.first is None else self.first()

    def step(self, key, state, action, task):
        answer = running(jnp.zeros(1), (action == task) * 1.0)
        return (state, answer) if self.wrong is None else self.wrong(state, answer)


def silent(*_):
    raise NotImplementedError


def burnt(*_):
    raise KeyError("fuse")


def answer(**changes):
    """A step with other fields, whatever they are, as the type checks of tests would be first to complain."""
    step = running(jnp.zeros(1), jnp.ones(()))
    for name, value in changes.items():
        step = eqx.tree_at(lambda step, name=name: getattr(step, name), step, value)
    return step


WRONG = {
    r"reset\(key, task\) raised KeyError: 'fuse'": {"first": burnt},
    r"reset\(key, task\) raised NotImplementedError\.": {"first": silent},
    r"Lamp.horizon: expected at least 1 step per episode, got 0": {"horizon": 0},
    r"Lamp.actions: expected a Discrete or a Box, got 3": {"buttons": 3},
    r"reset\(key, task\): expected a pair, \(state, observation\), got": {"first": lambda: jnp.zeros(1)},
    r"reset\(key, task\): expected an observation of shape \(1,\), got \(2,\)": {
        "first": lambda: (jnp.zeros(()), jnp.zeros(2))
    },
    r"step\(key, state, action, task\) raised KeyError": {"wrong": burnt},
    "expected a Step second, got tuple": {"wrong": lambda state, step: (state, (1, 2))},
    r"expected an observation of shape \(1,\), got \(\)": {
        "wrong": lambda state, step: (state, answer(observation=jnp.zeros(())))
    },
    "expected an observation of type float32, as `reset` shows, got int32": {
        "wrong": lambda state, step: (state, answer(observation=jnp.zeros(1, jnp.int32)))
    },
    r"expected a reward of shape \(\), got \(1,\)": {"wrong": lambda state, step: (state, answer(reward=jnp.ones(1)))},
    "expected a reward that is a float, got int32": {
        "wrong": lambda state, step: (state, answer(reward=jnp.ones((), jnp.int32)))
    },
    "expected terminated as a bool, got float32": {
        "wrong": lambda state, step: (state, answer(terminated=jnp.zeros(())))
    },
    r"expected a state as `reset` gives it, state float32\[\], got state int32\[\]": {
        "wrong": lambda state, step: (jnp.zeros((), jnp.int32), step)
    },
}


@pytest.mark.parametrize("message", WRONG)
def test_a_slip_is_named_before_anything_is_played(message):
    with pytest.raises(UserError, match=message):
        Worlds(Lamp(**WRONG[message]))


def test_what_is_no_environment_is_refused():
    with pytest.raises(UserError, match=r"Expected an `Environment`, got Discrete. .* `metatower.adapters`"):
        check_environment(Discrete(2))


def test_rewards_that_are_no_numbers_are_found_where_agents_are_judged():
    def unpaid(state, step):
        return state, answer(reward=jnp.where(step.reward > 0, jnp.nan, 0.0))

    how: dict[str, Any] = {"episodes": 1, "trials": 8, "seed": 0}
    assert judge_trials(Random(Discrete(2)), Lamp(), **how)["return"].shape == (8,)
    with pytest.raises(UserError, match=r"Trial \d of seed 0 in Lamp gained nan, and \d more of 8 no number either"):
        judge_trials(Random(Discrete(2)), Lamp(wrong=unpaid), **how)


def test_rewards_that_are_no_numbers_are_named_where_they_stop_a_training():
    def unpaid(state, step):
        return state, answer(reward=jnp.where(step.reward > 0, jnp.nan, 0.0))

    lamp = Lamp(wrong=unpaid)
    ppo = PPO(rl2(lamp, key=jax.random.key(0), size=4), sgd(0.1), 1, trials=8, minibatches=2)
    with pytest.raises(NonFinite, match=r"rewards of Lamp `step` .* Rewards are the environment's") as found:
        train(ppo, Worlds(lamp), steps=1, seed=0)
    assert "lower rate" not in str(found.value)
