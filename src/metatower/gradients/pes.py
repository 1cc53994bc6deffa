"""Persistent evolution strategies."""

import jax.numpy as jnp
from jaxtyping import Array, Bool

from metatower.gradients.partial_runs import PartialRuns


class PES(PartialRuns):
    """Online evolution strategies without truncation bias: a new perturbation per window, credited with all before.

    Vicol, Metz & Sohl-Dickstein 2021, "Unbiased Gradient Estimation in Unrolled Computation Graphs with Persistent
    Evolution Strategies", https://arxiv.org/abs/2112.13835:

        g = 1/σ² · ξ_τ L_τ(φ + ε_τ),    ξ_τ = ε_1 + ... + ε_τ,    ε ~ N(0, σ² I)

    What a window costs is due to all perturbations of its run so far, the windows before having left their trace in the
    state. For runs that are long or chaotic, with an update every few steps. Where a run forgets, most of ξ is noise
    and the variance grows with the number of its windows; `NRES` has less there, and no more elsewhere.

    How partial runs get into the contract: `Gradient.begin` sees the objective before the first step, so that the
    memory can hold inner states; `Gradient.cross` gets the objective as a function of its leaves; and a `Run` can be
    played in parts. No storey asks which gradient it has, and the tower lifts as ever.

    Differs from the paper in: the arguments `every_step` and `staggered`, see `PartialRuns`; perturbations come in
    antithetic pairs, as in the authors' code; the runs are of a batch of tasks.
    """

    def remember(
        self, noise: list[Array], fresh: list[Array], begins: Bool[Array, ""]
    ) -> tuple[list[Array], list[Array]]:
        return fresh, [e + jnp.where(begins, 0, xi) for e, xi in zip(fresh, noise, strict=True)]
