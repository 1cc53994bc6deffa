"""From examples of a distribution to a network for it: an encoder of tasks, and a generator of networks."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.core import Task
from metatower.nets.mlp import Linear
from metatower.nets.sets import SetEncoder
from metatower.nets.super_net import OPS, Structure, choose, open_or_shut

WIDEST = 2.0
"""By how much, in logarithms, a generated rate may differ from the mean rate."""


class TaskEncoder(eqx.Module):
    """A vector for a task, from its support and its query; the mean over tasks stands for their distribution.

    Sets of sets: Zaheer et al. 2017, "Deep Sets", twice.

    Args:
        inputs: numbers in one input x, whatever its shape.
        outputs: numbers in one target, or how many labels there can be.
        units: of all layers, and length of the vector.
    """

    examples: SetEncoder
    enter: Linear
    leave: Linear

    def __init__(self, inputs: int, outputs: int, units: int = 64, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.examples = SetEncoder(inputs, outputs, (units, units), key=keys[0])
        self.enter = Linear(2 * units, units, key=keys[1])
        self.leave = Linear(units, units, key=keys[2])

    def __call__(self, task: Task) -> Float[Array, " vector"]:
        both = jnp.concatenate([self.examples(task.support), self.examples(task.query)])
        return self.leave(jax.nn.relu(self.enter(both[None])))[0]


class Generated(eqx.Module):
    """What a generator says: a structure, and how far each number of the mean network is to be moved."""

    structure: Structure
    weights: list[Array]
    """For each layer its weight and its bias."""
    rates: Float[Array, " leaf"]
    """To be added to the logarithms of the rates."""
    op_logits: Float[Array, "layer op"]


class Head(eqx.Module):
    """Writes the rows of one layer, weights and bias, each from the layer's latent and an embedding of the row."""

    rows: Float[Array, "row unit"]
    read: Linear
    write: Float[Array, "unit column"]
    size: Float[Array, ""]
    """s in W = W̄ + s · Δ."""

    def __call__(self, latent: Float[Array, " latent"]) -> Float[Array, "row column"]:
        hidden = jnp.tanh(self.rows + self.read(latent[None]))
        return self.size * (hidden @ self.write)


class Generator(eqx.Module):
    """Emits the structure, the initial weights and the rates of a super-net from chance z and a context c.

        [z, c] → a latent q_l for each layer → gates of the layer;  q_l ← q_l + embedding of its operation
        W_l = W̄_l + s_l · Δ_l(q_l),    log rate of a leaf = mean + bounded(q_l)

    Weights are chunked by rows (Ha, Dai & Le 2017, "HyperNetworks", https://arxiv.org/abs/1609.09106) and residual,
    with latents of length 1 (Ortiz, Guttag & Dalca 2023, "Magnitude invariant parametrizations improve hypernetwork
    learning"), so that they start near the mean network and keep its scale. The operation is drawn first and weights
    and rates are written in its light.

    Args:
        sizes: of the super-net, inputs and outputs included.
        chance: numbers in z.
        context: numbers in c, before the generator's own layers.
        units, latent: of the mixing layers, and of each q_l.
        open: the logit at which the gates of units start; 3 is open in 19 of 20 draws.
    """

    mix: list[Linear]
    latents: Linear
    ops: Float[Array, "layer latent op"]
    units: Float[Array, "layer latent unit"]
    opened: Float[Array, "layer unit"]
    knows: Float[Array, "op latent"]
    heads: list[Head]
    rates: Float[Array, "all_layers latent two"]
    chance: int = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sequence[int],
        chance: int = 16,
        context: int = 64,
        units: int = 128,
        latent: int = 32,
        open: float = 3.0,
        *,
        key: PRNGKeyArray,
    ):
        layers, widest, keys = len(sizes) - 1, max(sizes[1:-1]), jax.random.split(key, 6)
        self.mix = [Linear(chance + context, units, key=keys[0]), Linear(units, units, key=keys[1])]
        self.latents = Linear(units, layers * latent, key=keys[2])
        self.ops = jax.random.normal(keys[3], (layers - 1, latent, len(OPS))) / latent**0.5
        self.units = jnp.zeros((layers - 1, latent, widest))
        self.opened = jnp.full((layers - 1, widest), open, jnp.result_type(float))
        self.knows = 0.5 * jax.random.normal(keys[4], (len(OPS), latent))
        shapes = zip(sizes[:-1], sizes[1:], jax.random.split(keys[5], layers), strict=True)
        self.heads = [_head(i + 1, o, latent, key=k) for i, o, k in shapes]
        self.rates = jnp.zeros((layers, latent, 2))
        self.chance = chance

    def __call__(
        self,
        z: Float[Array, " chance"],
        context: Float[Array, " context"],
        *,
        instead: Structure | None = None,
        share: Array | float = 0.0,
        temperature: Array | float = 1.0,
        key: PRNGKeyArray | None = None,
        straight: bool = True,
    ) -> Generated:
        """Args:
        instead: the structure to be taken, if `share` is 1.
        temperature, key: of the gates (`choose`); without a key they are not drawn.
        straight: whether operations have the derivative of `choose`; none if not, for who credits the draw itself.
        """
        hidden = jnp.concatenate([z, context])[None]
        for layer in self.mix:
            hidden = jax.nn.relu(layer(hidden))
        q = self.latents(hidden).reshape(len(self.heads), -1)
        q = q * jax.lax.rsqrt(jnp.mean(q**2, axis=1, keepdims=True) + 1e-6)
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        logits = jnp.einsum("lq,lqo->lo", q[:-1], self.ops)
        ops = choose(logits, temperature, key=keys[0])
        ops = ops if straight else jax.lax.stop_gradient(ops)
        units = open_or_shut(jnp.einsum("lq,lqu->lu", q[:-1], self.units) + self.opened, temperature, key=keys[1])
        if instead is not None:
            ops = (1 - share) * ops + share * instead.ops
            units = (1 - share) * units + share * instead.units
        q = q + jnp.concatenate([ops @ self.knows, jnp.zeros_like(q[:1])])
        rows = [head(each) for head, each in zip(self.heads, q, strict=True)]
        weights = [part for each in rows for part in (each[:-1], each[-1])]
        rates = WIDEST * jnp.tanh(jnp.einsum("lq,lqt->lt", q, self.rates) / WIDEST)
        return Generated(Structure(ops, units), weights, rates.reshape(-1), logits)


def _head(rows: int, columns: int, latent: int, units: int = 64, *, key: PRNGKeyArray) -> Head:
    keys = jax.random.split(key, 3)
    return Head(
        jax.random.normal(keys[0], (rows, units)),
        Linear(latent, units, key=keys[1]),
        jax.random.normal(keys[2], (units, columns)) / (units * max(rows - 1, 1)) ** 0.5,
        jnp.asarray(0.3, jnp.result_type(float)),
    )
