"""Agents that are told the truth: no learners in earnest, but the measure of what there is to be gained."""

import dataclasses
from typing import Any, Self

import equinox as eqx
from jaxtyping import PRNGKeyArray

from metatower.core import Scored
from metatower.envs.protocol import EnvTask
from metatower.envs.trial import World
from metatower.learners.acting import Acting, Agent


class Informed(Agent):
    """An agent that looks at the task of the world in which it acts, in its field `task`.

    `step` and `loss` tell it by themselves; where something else plays it, that has to call `knowing`.
    """

    task: eqx.AbstractVar[Any]
    """What it was told; None before."""

    def knowing(self, task: EnvTask) -> Self:
        """This agent in the world with this task."""
        return dataclasses.replace(self, task=task)  # type: ignore[type-var]

    def step(self, state: Acting, data: World, *, key: PRNGKeyArray) -> Acting:
        return super(Informed, self.knowing(data.task)).step(state, data, key=key)

    def loss(self, state: Acting, data: World, *, key: PRNGKeyArray) -> Scored:
        return super(Informed, self.knowing(data.task)).loss(state, data, key=key)
