"""One estimator, and another for when it fails."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from metatower.core import At, Data, Gradient, Learner, Scored, State, Task
from metatower.core.shares import mean_over_devices


class Switched(eqx.Module):
    """The memories of both estimators, and how often the second was needed."""

    first: State
    second: State
    count: Int[Array, ""]
    """Steps so far that took the second."""


class Switching(Gradient):
    """`first`, but `second` in the steps where the gradient of `first` is not finite or longer than `limit`.

    For runs that are chaotic in a part of what is learned: there the exact gradient grows as exp(λ T) with the run's
    Lyapunov exponent λ (Metz et al. 2021, "Gradients are not all you need", arXiv:2111.05803), where `Evolution`, `PES`
    or `NRES` stay as small as the loss. `evaluation.gradient_health` measures λ and suggests a limit.

    The choice is made in the compiled step, per step, from the norm over all learned numbers: the second estimator
    costs nothing while it is not needed (under `vmap`, as in storeys below the top, both are always computed). If it
    fails too, its numbers are passed on and stop the run. Nothing is zeroed, and nothing clipped.

    Args:
        first: for the usual case.
        second: for the others; both see the same keys.
        limit: on the Euclidean norm of the gradient of `first`.
    """

    first: Gradient
    second: Gradient
    limit: float = eqx.field(static=True, default=10.0)

    def __check_init__(self):
        if not self.limit > 0:
            raise ValueError(f"Switching: expected a limit above 0, got {self.limit}.")

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        return self.first.score(learner, task, key=key)

    def start(self, leaves: list[Array]) -> Switched:
        return Switched(self.first.start(leaves), self.second.start(leaves), jnp.zeros((), jnp.int32))

    def begin(self, at: At, leaves: list[Array], *, key: PRNGKeyArray) -> Switched:
        first, second = (each.begin(at, leaves, key=key) for each in (self.first, self.second))
        return Switched(first, second, jnp.zeros((), jnp.int32))

    def estimate(self, loss, leaves: list[Array], state: Any, *, key: PRNGKeyArray):
        found = self.first.estimate(loss, leaves, state.first, key=key)
        return self._choose(found, state, lambda old: self.second.estimate(loss, leaves, old, key=key))

    def cross(self, at: At, data: Data, leaves: list[Array], state: Any, *, key: PRNGKeyArray):
        axis = at(leaves).axis

        def by(gradient, memory):
            scored, slope, memory = gradient.cross(at, data, leaves, memory, key=key)
            return scored, mean_over_devices(slope, axis), memory  # before the choice: all devices must agree

        return self._choose(by(self.first, state.first), state, lambda old: by(self.second, old))

    def evaluations(self, size: int) -> int:
        return self.first.evaluations(size) + self.second.evaluations(size)

    def played(self, steps: int) -> int:
        return max(self.first.played(steps), self.second.played(steps))

    def loss_key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        return self.first.loss_key(key)

    def _choose(self, found, state: Switched, otherwise):
        (value, metrics), gradient, memory = found
        failed = ~fine(gradient, self.limit)

        def second(_):
            _, gradient, memory = otherwise(state.second)
            return gradient, memory

        gradient, other = jax.lax.cond(failed, second, lambda gradient: (gradient, state.second), gradient)
        return (value, metrics), gradient, Switched(memory, other, state.count + failed)


def fine(gradient: list[Array], limit: float) -> Bool[Array, ""]:
    """Whether a gradient is finite and at most `limit` long; a norm that overflows is longer."""
    return jnp.sqrt(sum(jnp.sum(g**2) for g in gradient)) <= limit
