"""Implicit MAML's inner problem."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from metatower.core import Learner, Objective, Scored, pick, put, value
from metatower.core.leaves import constant_unless_array, strong


class Anchored(eqx.Module):
    """What an `ImplicitMAML` has learned, and what its objective wants remembered of the data."""

    leaves: list[Array]
    seen: PyTree


class ImplicitMAML(Learner):
    """Learns a task, but is held near its initial weights θ, so that where it ends depends on θ smoothly.

    Rajeswaran, Finn, Kakade & Levine 2019, "Meta-Learning with Implicit Gradients", https://arxiv.org/abs/1909.04630,
    equation 3, by gradient descent:

        φ → argmin_φ L_support(φ) + ½ · strength · ‖φ − θ‖²

    Cross it with `gradient=Implicit()`: nothing of the run is stored, and the meta-gradient is that of the minimum.
    `Unrolled()` works too and is exact for the steps taken: `lift(ImplicitMAML(o), adam(1e-3), gradient=Implicit())`.

    Args:
        objective: what each task scores.
        rate: of the inner steps; a number (fixed), an array or `Positive`. `Implicit` gives it no gradient.
        strength: λ of the paper, likewise; `Implicit` does give it one.
        steps: inner steps, 16 to 25 in the paper.

    Differs from the paper in: nothing; the authors' code leaves the proximal term out of all steps but the last.
    """

    objective: Objective
    rate: Any = eqx.field(converter=constant_unless_array, default=0.1)
    strength: Any = eqx.field(converter=constant_unless_array, default=2.0)
    steps: int = eqx.field(static=True, default=16)

    def start(self, *, key: PRNGKeyArray) -> Anchored:
        del key
        return Anchored([strong(leaf) for leaf in pick(self.objective)], self.objective.seen(None))

    def residual(self, leaves: list[Array], data: Any, *, key: PRNGKeyArray) -> list[Array]:
        """The slope of the inner problem; zero where it is solved. Its derivative is a symmetric matrix."""
        slope = jax.grad(lambda leaves: put(self.objective, leaves).loss(data, key=key)[0])(leaves)
        pairs = zip(slope, leaves, pick(self.objective), strict=True)
        return [g + value(self.strength) * (phi - theta) for g, phi, theta in pairs]

    def at(self, leaves: list[Array], data: Any) -> Anchored:
        """The state of a run on `data` that has come to these leaves."""
        return Anchored(leaves, put(self.objective, leaves).seen(data))

    def step(self, state: Anchored, data: Any, *, key: PRNGKeyArray) -> Anchored:
        slope = self.residual(state.leaves, data, key=key)
        return self.at([phi - value(self.rate) * g for phi, g in zip(state.leaves, slope, strict=True)], data)

    def loss(self, state: Anchored, data: Any, *, key: PRNGKeyArray) -> Scored:
        return self.judge(state).loss(data, key=key)

    def judge(self, state: Anchored) -> Objective:
        return put(self.objective, state.leaves).after(state.seen).as_judge()

    @property
    def height(self) -> int:
        return self.objective.height
