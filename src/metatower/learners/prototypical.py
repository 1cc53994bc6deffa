"""Prototypical Networks."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from metatower.core import value
from metatower.core.leaves import constant_unless_array
from metatower.learners.features import FeatureLearner, class_means, shares_of_means, square_distances, unit


class PrototypicalNetwork(FeatureLearner):
    """Answers with the class whose mean feature, its prototype, is nearest.

    Snell, Swersky & Zemel 2017, "Prototypical Networks for Few-shot Learning", https://arxiv.org/abs/1703.05175,
    equations 1 and 2:

        c_k = mean of f(x) over the support of class k,    logit_k = −scale · ‖f(x) − c_k‖²

    Train it as `lift(PrototypicalNetwork(net), adam(1e-3))` on tasks of many ways (60 in the paper), use it on few.

    Args:
        net: gives the features.
        distance: "euclidean" (squared), or "cosine" for logit_k = scale · cos(f(x), c_k).
        scale: of the logits; a number (fixed), an array or `Positive` (learned). Cosines want about 10.

    Differs from the paper in: support and query are normalised apart where the network has norms.

    >>> import jax, jax.numpy as jnp
    >>> from metatower.nets import Examples
    >>> learner = PrototypicalNetwork(lambda x: x)
    >>> support = Examples(jnp.array([[0.0], [2.0], [6.0]]), jnp.array([0, 0, 1]), ways=jnp.ones(2, bool))
    >>> learner.adapt(support, key=jax.random.key(0)).head.tolist()
    [[1.0], [6.0]]
    """

    net: Any
    distance: Literal["euclidean", "cosine"] = eqx.field(static=True, default="euclidean")
    scale: Any = eqx.field(converter=constant_unless_array, default=1.0)

    def __check_init__(self):
        if self.distance not in ("euclidean", "cosine"):
            raise ValueError(f"PrototypicalNetwork: expected 'euclidean' or 'cosine', got {self.distance!r}.")

    def fit(self, features: Float[Array, "n feature"], own: Float[Array, "n way"]) -> Float[Array, "way feature"]:
        return class_means(features, own)

    def logits(self, head: Float[Array, "way feature"], features: Float[Array, "n feature"]) -> Float[Array, "n way"]:
        if self.distance == "cosine":
            return value(self.scale) * unit(features) @ unit(head).T
        return -value(self.scale) * square_distances(features, head)

    def shares(self, head, features, support, own):
        if self.distance == "cosine":
            share = own / jnp.maximum(jnp.sum(own, axis=0), 1e-9)
            # a class without examples has no direction
            share = share / jnp.maximum(jnp.linalg.norm(head, axis=1), 1e-9)
            return value(self.scale) * (unit(features) @ support.T)[:, :, None] * share
        return value(self.scale) * shares_of_means(features, support, own, head)
