"""Noise-reuse evolution strategies."""

import jax.numpy as jnp
from jaxtyping import Array, Bool

from metatower.gradients.partial_runs import PartialRuns


class NRES(PartialRuns):
    """Online evolution strategies without truncation bias: one perturbation for the whole of a run.

    Li, Harrison, Sohl-Dickstein, Smith & Metz 2023, "Variance-Reduced Gradient Estimation via Noise-Reuse in Online
    Evolution Strategies", https://arxiv.org/abs/2304.12180:

        g = 1/2σ² · ε (L_τ(φ + ε) − L_τ(φ − ε)),    the same ε ~ N(0, σ² I) in every window τ of a run

    Of all estimators that renew their noise every so often, `PES` among them, one estimate of it has the least variance
    (shown there for losses that are nearly quadratic), and it needs no sum of noise. The windows of *one* run share
    their noise, so that their mean is no better than one of them: it takes workers at different windows, `staggered`.

    Differs from the paper in: as `PES`.
    """

    def remember(
        self, noise: list[Array], fresh: list[Array], begins: Bool[Array, ""]
    ) -> tuple[list[Array], list[Array]]:
        kept = [jnp.where(begins, e, old) for e, old in zip(fresh, noise, strict=True)]
        return kept, kept
