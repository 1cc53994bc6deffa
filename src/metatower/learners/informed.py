"""Agents that learn nothing: told the truth they show what there is to be gained, at random what there is for free."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from metatower.core import Scored
from metatower.envs.protocol import Box, Discrete, EnvTask
from metatower.envs.trial import Seen, World
from metatower.learners.acting import Acting, Agent


class Informed(Agent):
    """An agent that looks at the task of the world in which it acts, in its field `task`.

    `step` and `loss` tell it by themselves; where something else plays it, that has to call `knowing`.
    """

    task: eqx.AbstractVar[Any]
    """What it was told, or made of it; None before."""

    def knowing(self, task: EnvTask) -> "Informed":
        """This agent in the world with this task."""
        return dataclasses.replace(self, task=task)  # type: ignore[type-var]

    def step(self, state: Acting, data: World, *, key: PRNGKeyArray) -> Acting:
        return super(Informed, self.knowing(data.task)).step(state, data, key=key)

    def loss(self, state: Acting, data: World, *, key: PRNGKeyArray) -> Scored:
        return super(Informed, self.knowing(data.task)).loss(state, data, key=key)


class Oracle(Informed):
    """Acts by a policy that is given the task.

    Args:
        actions: numbers that encode an action.
        policy: action as a function of the plan, the observation and the time in the episode (0 at its first step).
        plan: what is made of the task once per trial; the task itself if None.
    """

    actions: int = eqx.field(static=True)
    policy: Callable[[Any, Array, Array], Any] = eqx.field(static=True)
    plan: Callable[[Any], Any] | None = eqx.field(static=True)
    task: Any

    def __init__(
        self,
        actions: int,
        policy: Callable[[Any, Array, Array], Any],
        plan: Callable[[Any], Any] | None = None,
        task: Any = None,
    ):
        self.actions, self.policy, self.plan, self.task = actions, policy, plan, task

    def knowing(self, task: EnvTask) -> "Oracle":
        return dataclasses.replace(self, task=task if self.plan is None else self.plan(task))

    def begin(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        del key
        return jnp.zeros((), jnp.int32)

    def decide(self, memory: Int[Array, ""], seen: Seen, *, key: PRNGKeyArray):
        del key
        time = jnp.where(seen.done > 0, 0, memory)
        return time + 1, self.policy(self.task, seen.observation, time), {}


class Random(Agent):
    """Any action of a space, all equally likely.

    Args:
        space: of an environment: `environment.actions`.
    """

    actions: int = eqx.field(static=True)
    space: Discrete | Box

    def __init__(self, space: Discrete | Box):
        self.space, self.actions = space, space.size

    def begin(self, *, key: PRNGKeyArray) -> None:
        del key

    def decide(self, memory: None, seen: Seen, *, key: PRNGKeyArray):
        del seen
        return memory, self.space.sample(key), {}
