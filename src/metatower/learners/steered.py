"""Learners of tasks whose steps somebody else scales."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.core import Descend, Gradient, Learner, Rule, Scored, Selector, State, pick


class Steered(Learner):
    """A learner of tasks whose steps are scaled, pulled back to the start, and counted.

        θ ← θ + f · (what the learner's step adds) − p · (θ − θ_0)     for the first `counted` steps

    Args:
        objective: what a task scores; its leaves are θ_0.
        rule, gradient, learn: of the learner, as in `Descend`.
        logs: the logarithms of f and p.
        counted: of the `steps` steps, how many do anything.
    """

    objective: Any
    rule: Rule
    logs: Float[Array, "2"]
    counted: Int[Array, ""]
    gradient: Gradient
    learn: Selector | None = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def start(self, *, key: PRNGKeyArray) -> tuple[State, Int[Array, ""]]:
        return self._plain.start(key=key), jnp.zeros((), jnp.int32)

    def step(self, state: tuple, data: Any, *, key: PRNGKeyArray) -> tuple[State, Int[Array, ""]]:
        old, count = state
        new = self._plain.step(old, data, key=key)
        factor, pull = jnp.exp(self.logs[0]), jnp.minimum(jnp.exp(self.logs[1]), 1.0)
        on = count < self.counted
        moved = [
            jnp.where(on, a + factor * (b - a) - pull * (a - first), a)
            for a, b, first in zip(old.leaves, new.leaves, pick(self.objective, self.learn), strict=True)
        ]
        return dataclasses.replace(new, leaves=moved), count + 1

    def loss(self, state: tuple, data: Any, *, key: PRNGKeyArray) -> Scored:
        return self._plain.loss(state[0], data, key=key)

    @property
    def _plain(self) -> Descend:
        return Descend(self.objective, self.rule, self.steps, self.gradient, self.learn)

    @property
    def height(self) -> int:
        return self.objective.height
