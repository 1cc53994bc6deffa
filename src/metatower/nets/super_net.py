"""A network of fixed shape that holds many: gates choose each layer's operation and which of its units there are."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.core import Constant, value
from metatower.nets.mlp import MLP, Linear

OPS: dict[str, Callable[[Array], Array]] = {
    "skip": lambda a: a,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sin": jnp.sin,
    "gauss": lambda a: jnp.exp(-(a**2)),
}
"""What a hidden layer may do to its sums; "skip" leaves them as they are, so that the layer melts into the next."""


class Structure(eqx.Module):
    """Which network of a super-net: gates of its hidden layers, each 0 or 1."""

    ops: Float[Array, "layer op"]
    """One 1 in every row, in the order of `OPS`."""
    units: Float[Array, "layer unit"]
    """Which units are there; of a narrower layer the first ones count."""


class SuperNet(eqx.Module):
    """A fully connected network whose hidden layers are gated: h ← units ∘ Σ_k ops_k · op_k(h W + b).

    Its learnable leaves are weights and biases. The structure is a `Constant`: it does not move on a task, but who
    generates it may differentiate through it. After one-shot architecture search (Bender et al. 2018; Liu, Simonyan &
    Yang 2019, "DARTS"), with gates that are 0 or 1 in the forward pass.
    """

    layers: list[Linear]
    structure: Constant

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        structure = value(self.structure)
        h = x.reshape(len(x), -1)
        for layer, ops, units in zip(self.layers[:-1], structure.ops, structure.units, strict=True):
            a = layer(h)
            said = jnp.stack([op(a) for op in OPS.values()])
            h = jnp.tensordot(ops, said, 1) * units[: a.shape[-1]]
        return self.layers[-1](h)

    def with_structure(self, structure: Structure) -> "SuperNet":
        """The same weights in another structure."""
        return SuperNet(self.layers, Constant(structure))

    def cost(self) -> Float[Array, ""]:
        """The share of the weights' multiplications that stands between units that are there: 1 if all are."""
        units = value(self.structure).units
        sizes = [len(layer.weight) for layer in self.layers] + [self.layers[-1].weight.shape[1]]
        there = [jnp.array(float(sizes[0]))]
        there += [jnp.sum(u[:size]) for u, size in zip(units, sizes[1:-1], strict=True)]
        there.append(jnp.array(float(sizes[-1])))
        used = jnp.stack([a * b for a, b in pairwise(there)])
        return jnp.sum(used) / sum(a * b for a, b in pairwise(sizes))


class OfOps(eqx.Module):
    """The network that a `SuperNet` is with these operations and all units, at a fifth of its cost."""

    layers: list[Linear]
    ops: tuple[str, ...] = eqx.field(static=True)
    """One of each hidden layer."""

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        h = x.reshape(len(x), -1)
        for layer, op in zip(self.layers[:-1], self.ops, strict=True):
            h = OPS[op](layer(h))
        return self.layers[-1](h)


def super_net(sizes: Sequence[int], ops: str | Sequence[str] = "relu", *, key: PRNGKeyArray) -> SuperNet:
    """A fresh super-net, of these operations and all units: then it is an ordinary network.

    Args:
        sizes: units per layer, inputs and outputs included: `(1, 40, 40, 1)`.
        ops: of `OPS`, one of each hidden layer, or one of all.

    >>> net = super_net((1, 3, 2), "relu", key=jax.random.key(0))
    >>> x = jnp.ones((4, 1))
    >>> bool(jnp.allclose(net(x), MLP((1, 3, 2), key=jax.random.key(0))(x)))
    True
    """
    if len(sizes) < 3:
        raise ValueError(f"super_net: expected at least one hidden layer, got the sizes {tuple(sizes)}.")
    ops = (ops,) * (len(sizes) - 2) if isinstance(ops, str) else tuple(ops)
    unknown = [op for op in ops if op not in OPS]
    if unknown:
        raise ValueError(f"super_net: expected an operation of {', '.join(OPS)}; got {unknown[0]!r}.")
    if len(ops) != len(sizes) - 2:
        raise ValueError(f"super_net: expected an operation of each of {len(sizes) - 2} hidden layers, got {ops}.")
    return SuperNet(MLP(sizes, key=key).layers, Constant(of_ops(ops, max(sizes[1:-1]))))


def of_ops(ops: Sequence[str], units: int) -> Structure:
    """The structure with these operations, one of each hidden layer, and all units."""
    chosen = jnp.array([list(OPS).index(op) for op in ops])
    return Structure(jax.nn.one_hot(chosen, len(OPS)), jnp.ones((len(ops), units)))


def choose(
    logits: Float[Array, "*gates choice"], temperature: Array | float = 1.0, *, key: PRNGKeyArray | None = None
) -> Float[Array, "*gates choice"]:
    """A 1 at one choice of the last axis and 0 elsewhere; its derivative is that of a softmax (straight-through).

    Jang, Gu & Poole 2017, "Categorical Reparameterization with Gumbel-Softmax", https://arxiv.org/abs/1611.01144,
    section 2.2. Without a key nothing is drawn: the likeliest is chosen.

    >>> choose(jnp.array([0.0, 2.0, 1.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    if key is not None:
        logits = logits + jax.random.gumbel(key, logits.shape)
    soft = jax.nn.softmax(logits / temperature)
    hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), soft.shape[-1])
    return hard + (soft - jax.lax.stop_gradient(soft))


def open_or_shut(
    logits: Float[Array, "*gates"], temperature: Array | float = 1.0, *, key: PRNGKeyArray | None = None
) -> Float[Array, "*gates"]:
    """1 where a gate is open and 0 where it is shut; `choose` between two, of which one has the logit 0."""
    if key is not None:
        logits = logits + jax.random.logistic(key, logits.shape)
    soft = jax.nn.sigmoid(logits / temperature)
    return (soft > 0.5).astype(soft.dtype) + (soft - jax.lax.stop_gradient(soft))
