"""Nearest neighbour: the baseline that learns nothing beforehand."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from metatower.core import Learner, Scored, value
from metatower.core.leaves import constant_unless_array
from metatower.nets.supervised import Examples, cross_entropy


class NearestNeighbour(Learner):
    """Answers with the class of the most similar support example, by the cosine of the raw inputs.

    Cover & Hart 1967, "Nearest neighbor pattern classification". What any learned few-shot classifier has to beat.
    Its logits are `sharpness` times the similarity to the nearest example of each class; the storey above may
    learn that one number.

    Args:
        ways: number of classes.
        sharpness: scale of the logits, an array to have it learned.
    """

    sharpness: Any = eqx.field(converter=constant_unless_array, default=10.0)
    ways: int = eqx.field(static=True, default=5)

    def start(self, *, key: PRNGKeyArray) -> None:
        del key

    def step(self, state: Examples | None, data: Examples, *, key: PRNGKeyArray) -> Examples:
        del state, key
        return data

    def loss(self, state: Examples, data: Examples, *, key: PRNGKeyArray) -> Scored:
        del key
        similarity = _unit(data.x) @ _unit(state.x).T
        own = state.y[None, None, :] == jnp.arange(self.ways)[None, :, None]
        if state.weight is not None:
            own &= state.weight > 0
        nearest = jnp.max(jnp.where(own, similarity[:, None, :], -1.0), axis=-1)
        return cross_entropy(value(self.sharpness) * nearest, data)


def _unit(x):
    x = x.reshape(len(x), -1)
    return x / jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)
