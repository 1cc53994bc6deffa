"""A weight matrix that rewrites itself."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.core import Learner, Scored
from metatower.nets.mlp import Linear
from metatower.nets.supervised import Examples, squared_error


class SelfReferential(Learner):
    """Reads a task's examples one by one into a weight matrix that decides itself how it is changed.

    Irie, Schlag, Csordás & Schmidhuber 2022, "A Modern Self-Referential Weight Matrix That Learns to Modify Itself",
    https://arxiv.org/abs/2202.05780, equations 5 to 8:

        [y, k, q, β] = W φ(x)                      φ: softmax
        v = W φ(q),   v̄ = W φ(k)
        W ← W + σ(β) (v − v̄) ⊗ φ(k)

    where β has four numbers: one for the rows that make each of y, k, q and β. An example comes in as its input and its
    target together; a query comes without, as the paper's last input does, and W answers it but is not changed by it.
    The one step is a whole pass over the support set, in the order it comes in; padding is passed over. The start W_0,
    with the layers before and after, is all that the lift learns: `lift(self_referential(1, 1, key=key), adam(1e-3))`.

    Make one with `self_referential`.

    Differs from the paper in: one head and one such layer between a network that reads and a linear layer that answers,
    with a residual connection around it, where the paper stacks layers with transformer blocks; a larger W_0; queries
    do not change the weights for each other.
    """

    read: list[Linear]
    weight: Float[Array, "says unit"]
    """W_0: rows for y, k and q, as many as units each, then four for β."""
    answer: Linear
    criterion: Callable[[Array, Examples], Scored] = eqx.field(static=True)
    targets: int = eqx.field(static=True)

    def start(self, *, key: PRNGKeyArray) -> Float[Array, "says unit"]:
        del key
        return self.weight

    def step(self, state: Array, data: Examples, *, key: PRNGKeyArray) -> Array:
        del key

        def one(weight, example):
            x, there = example
            return weight + there * self.change(weight, x), None

        there = jnp.ones(len(data.x), state.dtype) if data.weight is None else (data.weight > 0).astype(state.dtype)
        return jax.lax.scan(one, state, (self._read(data, True), there))[0]

    def change(self, weight: Float[Array, "says unit"], x: Float[Array, " unit"]) -> Float[Array, "says unit"]:
        """By how much W changes itself when it sees x."""
        units = len(x)
        _, k, q, rate = jnp.split(weight @ jax.nn.softmax(x), (units, 2 * units, 3 * units))
        key, query = jax.nn.softmax(k), jax.nn.softmax(q)
        # one rate for the rows of y, of k, of q, and of β itself
        rates = jnp.repeat(jax.nn.sigmoid(rate), jnp.array([units] * 3 + [4]), total_repeat_length=len(weight))
        return (rates * (weight @ query - weight @ key))[:, None] * key

    def predict(self, state: Array, data: Examples) -> Float[Array, "n output"]:
        """Outputs for each example, by its input alone."""
        x = self._read(data, False)
        return self.answer(x + jax.nn.softmax(x, axis=1) @ state[: x.shape[1]].T)

    def loss(self, state: Array, data: Examples, *, key: PRNGKeyArray) -> Scored:
        del key
        return self.criterion(self.predict(state, data), data)

    def _read(self, data: Examples, with_target: bool) -> Float[Array, "n unit"]:
        x = data.x.reshape(len(data.x), -1)
        if jnp.issubdtype(data.y.dtype, jnp.integer):
            y = jax.nn.one_hot(data.y, self.targets, dtype=x.dtype)
        else:
            y = data.y.reshape(len(x), -1)
        # a number that says whether there is a target, so that its lack is no target of nought
        shown = jnp.ones((len(x), 1), x.dtype) * with_target
        hidden = jnp.concatenate([x, y * with_target, shown], axis=1)
        for layer in self.read[:-1]:
            hidden = jax.nn.relu(layer(hidden))
        return self.read[-1](hidden)


def self_referential(
    inputs: int,
    targets: int,
    *,
    key: PRNGKeyArray,
    units: int = 32,
    hidden: tuple[int, ...] = (64,),
    criterion: Any = squared_error,
) -> SelfReferential:
    """A fresh `SelfReferential`.

    Args:
        inputs: numbers in one input, whatever its shape.
        targets: numbers in one target, or how many labels there can be.
        units: of the self-referential layer.
        hidden: units of the layers that read.
        criterion: `squared_error` or `cross_entropy`.
    """
    sizes, keys = (inputs + targets + 1, *hidden, units), jax.random.split(key, len(hidden) + 3)
    read = [Linear(i, o, key=k) for i, o, k in zip(sizes[:-1], sizes[1:], keys[2:], strict=True)]
    # so large, as what it is multiplied with sums to 1: keys and queries are then of size 1, and differ by input
    weight = jax.random.normal(keys[0], (3 * units + 4, units)) * units**0.5
    return SelfReferential(read, weight, Linear(units, targets, key=keys[1]), criterion, targets)
