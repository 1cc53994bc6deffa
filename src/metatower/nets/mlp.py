"""Fully connected networks."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class Linear(eqx.Module):
    """x W + b, on a batch. Weights start at N(0, scale²/inputs), biases at 0."""

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, inputs: int, outputs: int, *, key: PRNGKeyArray, scale: float = 2**0.5):
        self.weight = jax.random.normal(key, (inputs, outputs)) * (scale / inputs**0.5)
        self.bias = jnp.zeros(outputs)

    def __call__(self, x: Float[Array, "n inputs"]) -> Float[Array, "n outputs"]:
        return x @ self.weight + self.bias


class MLP(eqx.Module):
    """Linear layers with ReLU between them; inputs of any shape are flattened.

    Args:
        sizes: units per layer, inputs and outputs included: `(1, 40, 40, 1)`.
        head_scale: initial scale of the last layer; 0 starts with equal outputs for all classes.
    """

    layers: list[Linear]

    def __init__(self, sizes: Sequence[int], *, key: PRNGKeyArray, head_scale: float = 1.0):
        keys = jax.random.split(key, len(sizes) - 1)
        scales = [2**0.5] * (len(sizes) - 2) + [head_scale]
        shapes = zip(sizes[:-1], sizes[1:], keys, scales, strict=True)
        self.layers = [Linear(i, o, key=k, scale=s) for i, o, k, s in shapes]

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        x = x.reshape(len(x), -1)
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)
