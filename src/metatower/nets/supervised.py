"""A network and a loss: the objective at the foot of most towers."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.core import Objective, Scored


class Examples(eqx.Module):
    """Inputs with their targets; `weight` masks examples out (0) where sets are ragged, all count if None."""

    x: Array
    y: Array
    weight: Float[Array, " n"] | None = None


def mean(values: Float[Array, " n"], weight: Float[Array, " n"] | None) -> Float[Array, ""]:
    """The mean over examples, weighted if there are weights."""
    if weight is None:
        return jnp.mean(values)
    return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1e-9)


def squared_error(prediction: Array, data: Examples) -> Scored:
    """Mean squared error; the mean is over examples and outputs."""
    return mean(jnp.mean((prediction - data.y) ** 2, axis=-1), data.weight), {}


def cross_entropy(logits: Float[Array, "n way"], data: Examples) -> Scored:
    """Mean cross-entropy, with the accuracy as a metric (a share of 1)."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), data.y[:, None], axis=-1)[:, 0]
    hits = (jnp.argmax(logits, axis=-1) == data.y).astype(logits.dtype)
    return -mean(chosen, data.weight), {"accuracy": mean(hits, data.weight)}


class Supervised(Objective):
    """Scores a network on `Examples`.

    Args:
        net: takes a batch of inputs `[n, ...]` and gives a batch of outputs `[n, out]`; its learnable leaves
            are the parameters. A network for single examples becomes one with `jax.vmap`.
        criterion: `squared_error`, `cross_entropy`, or any function of (prediction, examples).
    """

    net: Callable[[Array], Array]
    criterion: Callable[[Array, Examples], Scored] = eqx.field(static=True)

    def loss(self, data: Examples, *, key: PRNGKeyArray) -> Scored:
        del key
        return self.criterion(self.net(data.x), data)
