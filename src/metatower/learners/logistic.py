"""Logistic regression: the strong baseline on features of a plainly trained network."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metatower.core import value
from metatower.core.leaves import constant_unless_array
from metatower.learners.features import FeatureLearner, unit, with_one
from metatower.learners.posdef import solve


class LogisticRegression(FeatureLearner):
    """Answers by multinomial logistic regression on the features, fitted to the support set afresh.

    Chen, Liu, Kira, Wang & Huang 2019, "A Closer Look at Few-shot Classification", https://arxiv.org/abs/1904.04232
    (Baseline); Tian et al. 2020, https://arxiv.org/abs/2003.11539, with features of length 1. Minimises

        mean over examples of −log softmax(W x + b)_y  +  ½ · penalty / n · ‖W‖²

    as scikit-learn does with C = 1 / penalty, by Newton steps with a fixed bound of the curvature instead of the
    curvature itself (Böhning 1992, "Multinomial logistic regression algorithm", section 3): every step descends, and
    all of them share one inverse. Differentiable, so that it lifts.

    Args:
        net: gives the features.
        penalty: of the weights, not of the intercepts.
        iterations: Newton steps; a few examples of each class, at length 1, are done to float32's precision. Many that
            lie close together need more: probabilities of 150 irises are up to 0.005 from scikit-learn's.
        normalise: whether features are brought to length 1.

    Differs from the paper in: the solver.
    """

    net: Any
    penalty: Any = eqx.field(converter=constant_unless_array, default=1.0)
    iterations: int = eqx.field(static=True, default=100)
    normalise: bool = eqx.field(static=True, default=True)

    def fit(self, features: Float[Array, "n feature"], own: Float[Array, "n way"]) -> Float[Array, "feature_1 way"]:
        x, weight = self._inputs(features), jnp.sum(own, axis=1)
        count = jnp.maximum(jnp.sum(weight), 1e-9)
        ways = jnp.any(own > 0, axis=0)
        share = weight / count
        penalty = value(self.penalty) / count * jnp.ones(x.shape[1], x.dtype).at[-1].set(0.0)
        # ½ (I − 1/K) bounds the curvature of log-softmax, and ½ I bounds that
        bound = 0.5 * x.T @ (share[:, None] * x) + jnp.diag(penalty + 1e-6)
        back = solve(bound, jnp.eye(len(bound), dtype=x.dtype))

        def newton(w, _):
            p = jax.nn.softmax(jnp.where(ways, x @ w, -jnp.inf))
            slope = x.T @ (share[:, None] * p - own / count) + penalty[:, None] * w
            return w - back @ slope, None

        blank = jnp.zeros((x.shape[1], own.shape[1]), x.dtype)
        return jax.lax.scan(newton, blank, length=self.iterations)[0]

    def logits(self, head: Float[Array, "feature_1 way"], features: Float[Array, "n feature"]) -> Float[Array, "n way"]:
        return self._inputs(features) @ head

    def _inputs(self, features):
        return with_one(unit(features) if self.normalise else features)
