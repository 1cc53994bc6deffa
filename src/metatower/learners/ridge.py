"""Ridge regression on learned features: R2-D2."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from metatower.core import Positive, value
from metatower.core.leaves import constant_unless_array
from metatower.learners.features import FeatureLearner, with_one
from metatower.learners.posdef import solve


class R2D2(FeatureLearner):
    """Answers by ridge regression from the features to the one-hot labels, in closed form.

    Bertinetto, Henriques, Torr & Vedaldi 2019, "Meta-learning with differentiable closed-form solvers",
    https://arxiv.org/abs/1805.08136, equations 4 to 6, with the Woodbury identity for few examples:

        W = Xᵀ (X Xᵀ + λ I)⁻¹ Y,    logits = α · [x, 1] W + β

    where X has a column of ones, and X and Y are divided by √n (as the authors' code does). λ, α and β are learned
    with the network. Train it as `lift(R2D2(net), adam(5e-3))`.

    Args:
        net: gives the features.
        penalty: λ; `scale`: α; `offset`: β. Numbers are fixed, arrays and `Positive` are learned.

    Differs from the paper in: nothing. The released configuration keeps λ at 50: `penalty=50.0`.
    """

    net: Any
    penalty: Any = eqx.field(converter=constant_unless_array, default_factory=lambda: Positive(50.0))
    scale: Any = eqx.field(converter=constant_unless_array, default_factory=lambda: jnp.asarray(10.0))
    offset: Any = eqx.field(converter=constant_unless_array, default_factory=lambda: jnp.asarray(0.0))

    def fit(self, features: Float[Array, "n feature"], own: Float[Array, "n way"]) -> Float[Array, "feature_1 way"]:
        x, y = _weighted(features, own)
        penalty = value(self.penalty)
        if len(x) > x.shape[1]:
            return _solve(x.T @ x, penalty, x.T @ y)
        return x.T @ _solve(x @ x.T, penalty, y)

    def logits(self, head: Float[Array, "feature_1 way"], features: Float[Array, "n feature"]) -> Float[Array, "n way"]:
        return value(self.scale) * (with_one(features) @ head) + value(self.offset)

    def shares(self, head, features, support, own):
        del head
        x, y = _weighted(support, own)
        dual = _solve(x @ x.T, value(self.penalty), y)
        constant = value(self.offset) * jnp.sum(own, axis=1, keepdims=True) / jnp.sum(own)
        return value(self.scale) * (with_one(features) @ x.T)[:, :, None] * dual + constant


def _weighted(features, own):
    weight = jnp.sum(own, axis=1, keepdims=True)
    root = jnp.sqrt(weight / jnp.maximum(jnp.sum(weight), 1e-9))
    # of weight 0, a row is zero and takes no part
    return root * with_one(features), root * (own > 0)


def _solve(gram, penalty, y):
    return solve(gram + penalty * jnp.eye(len(gram), dtype=gram.dtype), y)
