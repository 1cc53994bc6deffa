"""One vector for a whole set of examples."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.nets.mlp import Linear
from metatower.nets.supervised import Examples


class SetEncoder(eqx.Module):
    """Zaheer et al. 2017, "Deep Sets", https://arxiv.org/abs/1703.06114: the mean over examples of a network of each.

    Args:
        inputs: numbers in one input x, whatever its shape.
        outputs: numbers in one target; labels count as one-hot vectors of this length.
        sizes: units of the network's layers, the last being the length of the vector.
    """

    layers: list[Linear]
    outputs: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, sizes: tuple[int, ...] = (64, 64), *, key: PRNGKeyArray):
        widths, keys = (inputs + outputs, *sizes), jax.random.split(key, len(sizes))
        self.layers = [Linear(i, o, key=k) for i, o, k in zip(widths[:-1], sizes, keys, strict=True)]
        self.outputs = outputs

    def __call__(self, data: Examples) -> Float[Array, " vector"]:
        x = data.x.reshape(len(data.x), -1)
        if jnp.issubdtype(data.y.dtype, jnp.integer):
            y = jax.nn.one_hot(data.y, self.outputs, dtype=x.dtype)
        else:
            y = data.y.reshape(len(x), -1)
        hidden = jnp.concatenate([x, y], axis=1)
        for layer in self.layers:
            hidden = jnp.tanh(layer(hidden))
        weight = jnp.ones(len(x), x.dtype) if data.weight is None else data.weight
        return weight @ hidden / jnp.maximum(jnp.sum(weight), 1e-9)
