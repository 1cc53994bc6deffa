"""Fully connected networks."""

from collections.abc import Sequence

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.nets.dense import dense


class Linear(eqx.Module):
    """x W + b, on a batch. Weights and biases start uniform in ±scale/√inputs (LeCun et al. 1998)."""

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, inputs: int, outputs: int, *, key: PRNGKeyArray, scale: float = 1.0):
        key_weight, key_bias = jax.random.split(key)
        bound = scale / max(inputs, 1) ** 0.5
        self.weight = jax.random.uniform(key_weight, (inputs, outputs), minval=-bound, maxval=bound)
        self.bias = jax.random.uniform(key_bias, (outputs,), minval=-bound, maxval=bound)

    def __call__(self, x: Float[Array, "n inputs"]) -> Float[Array, "n outputs"]:
        return dense(x, self.weight) + self.bias


class MLP(eqx.Module):
    """Linear layers with ReLU between them; inputs of any shape are flattened.

    Args:
        sizes: units per layer, inputs and outputs included: `(1, 40, 40, 1)`.
        head_scale: scales the start of the last layer; 0 starts with the same output for every input.
    """

    layers: list[Linear]

    def __init__(self, sizes: Sequence[int], *, key: PRNGKeyArray, head_scale: float = 1.0):
        keys = jax.random.split(key, len(sizes) - 1)
        scales = [1.0] * (len(sizes) - 2) + [head_scale]
        shapes = zip(sizes[:-1], sizes[1:], keys, scales, strict=True)
        self.layers = [Linear(i, o, key=k, scale=s) for i, o, k, s in shapes]

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        return self.activations(x)[-1]

    def activations(self, x: Float[Array, "n ..."], given: None = None) -> list[Float[Array, "n units"]]:
        """What every layer says; the last is the output. `given` is for networks with norms."""
        del given
        found = [x.reshape(len(x), -1)]
        for layer in self.layers[:-1]:
            found.append(jax.nn.relu(layer(found[-1])))
        return [*found[1:], self.layers[-1](found[-1])]
