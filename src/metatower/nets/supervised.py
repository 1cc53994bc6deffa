"""A network and a loss: the objective at the foot of most towers."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from metatower.core import Constant, Objective, Scored, value
from metatower.nets.norm import forward, norms


class Examples(eqx.Module):
    """Inputs with their targets; tasks of different sizes are padded to one shape, and say what of it is theirs."""

    x: Array
    y: Array
    weight: Float[Array, " n"] | None = None
    """0 masks an example out; all count if None."""
    ways: Bool[Array, " way"] | None = None
    """Of a classification task: which labels it has. Its length is the number of labels there can be."""


def mean(values: Float[Array, " n"], weight: Float[Array, " n"] | None) -> Float[Array, ""]:
    """The mean over examples, weighted if there are weights."""
    if weight is None:
        return jnp.mean(values)
    # selected, not only multiplied: what stands in padding may be infinite
    return jnp.sum(jnp.where(weight != 0, values * weight, 0.0)) / jnp.maximum(jnp.sum(weight), 1e-9)


def squared_error(prediction: Array, data: Examples) -> Scored:
    """Mean squared error; the mean is over examples and outputs."""
    return mean(jnp.mean((prediction - data.y) ** 2, axis=-1), data.weight), {}


def cross_entropy(logits: Float[Array, "n way"], data: Examples) -> Scored:
    """Mean cross-entropy, with the accuracy as a metric (a share of 1). Labels that the task lacks are no answers."""
    if data.ways is not None:
        more = logits.shape[-1] - len(data.ways)
        if more < 0:
            raise ValueError(
                f"cross_entropy: the tasks have up to {len(data.ways)} labels and the network {logits.shape[-1]} "
                "outputs. Give it as many outputs as there are labels, or tasks of fewer ways."
            )
        logits = jnp.where(jnp.pad(data.ways, (0, more)), logits, -jnp.inf)
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
    given: Constant | None = None
    """The statistics of the support set, where the network's norms ask for them."""

    def loss(self, data: Examples, *, key: PRNGKeyArray) -> Scored:
        del key
        return self.criterion(forward(self.net, data.x, data.weight, value(self.given))[0], data)

    def seen(self, data: Examples | None) -> PyTree:
        if not any(norm.mode == "support" for norm in norms(self.net)):
            return None
        return [norm.blank() for norm in norms(self.net)] if data is None else forward(self.net, data.x, data.weight)[1]

    def after(self, seen: PyTree) -> "Supervised":
        return self if seen is None else Supervised(self.net, self.criterion, Constant(seen))
