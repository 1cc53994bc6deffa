"""Persistent evolution strategies."""

import jax.numpy as jnp
from jaxtyping import Array, Bool

from metatower.gradients.partial_runs import PartialRuns


class PES(PartialRuns):
    """Online evolution strategies without truncation bias: a new perturbation per window, credited with all before.

    Vicol, Metz & Sohl-Dickstein 2021, "Unbiased Gradient Estimation in Unrolled Computation Graphs with Persistent
    Evolution Strategies", https://arxiv.org/abs/2112.13835, algorithm 2 and equation 9:

        g = 1/σ² · ξ_τ L_τ(φ + ε_τ),    ξ_τ = ε_1 + ... + ε_τ,    ε ~ N(0, σ² I)

    What a window costs is due to all perturbations of its run so far, the windows before having left their trace in the
    state. For runs that are long or chaotic, with an update every few steps. Its variance grows with the windows of a
    run where those forget (one per window or so), and stays where they do not; `NRES` has less.

    How partial runs get into the contract: `Gradient.begin` sees the objective before the first step, so that the
    memory can hold inner states; `Gradient.cross` gets the objective as a function of its leaves; and a `Run` can be
    played in parts. No storey asks which gradient it has, and the tower lifts as ever.

    Differs from the paper in: arguments `every_step` and `staggered`, see `PartialRuns`; gradients are averaged over a
    batch of tasks. In a run's own direction they are antithetic, as in the authors' code.
    """

    def remember(
        self, noise: list[Array], fresh: list[Array], begins: Bool[Array, ""]
    ) -> tuple[list[Array], list[Array]]:
        return fresh, [e + jnp.where(begins, 0, xi) for e, xi in zip(fresh, noise, strict=True)]
