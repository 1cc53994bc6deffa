"""Nearest neighbour: the baseline that learns nothing beforehand."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metatower.core import value
from metatower.core.leaves import constant_unless_array
from metatower.learners.features import FeatureLearner, unit


def flat(x: Float[Array, "n ..."]) -> Float[Array, "n feature"]:
    """The inputs themselves as features."""
    return x.reshape(len(x), -1)


class NearestNeighbour(FeatureLearner):
    """Answers with the class of the most similar support example, by the cosine of the features.

    Cover & Hart 1967, "Nearest neighbor pattern classification". On raw inputs it is what any learned few-shot
    classifier has to beat. Its logits are `sharpness` times the similarity to the nearest example of each class; the
    storey above may learn that one number.

    Args:
        net: gives the features; the raw inputs if not given.
        sharpness: scale of the logits, an array to have it learned.
    """

    net: Any = flat
    sharpness: Any = eqx.field(converter=constant_unless_array, default=10.0)

    def fit(self, features: Float[Array, "n feature"], own: Float[Array, "n way"]) -> tuple[Array, Array]:
        return unit(features), own

    def logits(self, head: tuple[Array, Array], features: Float[Array, "n feature"]) -> Float[Array, "n way"]:
        support, own = head
        similarity = unit(features) @ support.T
        nearest = jnp.max(jnp.where(own.T > 0, similarity[:, None, :], -1.0), axis=-1)
        return value(self.sharpness) * nearest

    def shares(self, head, features, support, own):
        del support
        similarity = jnp.where(own.T > 0, (unit(features) @ head[0].T)[:, None, :], -1.0)
        chosen = jax.nn.one_hot(jnp.argmax(similarity, axis=-1), len(own), dtype=similarity.dtype)
        return value(self.sharpness) * jnp.swapaxes(chosen * similarity, 1, 2)
