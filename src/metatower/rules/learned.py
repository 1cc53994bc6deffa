"""Learned update rules: a small network per number that a rule moves, all of them with the same weights."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metatower.core import Rule, State, value
from metatower.core.leaves import constant_unless_array
from metatower.rules.common import spread

EPS = 1e-10
"""Added to mean squares inside roots: a direction of less than 1e-5 counts as none, and derivatives stay finite."""


class Coordinatewise(Rule):
    """What the learned rules share: how far a leaf moves is said by numbers, the direction by a network.

        θ ← θ − rate · (1 + t)^(−decay) · rms(g)^power · u / rms(u),   u = network(g, memory, θ)

    per leaf: rms is the root mean square over the leaf, t the number of steps done. With power 0 the rule does not
    see the scale of the gradient; with power 1 it moves in proportion to it, as gradient descent does. No output of
    the network can make a step long (the cure of Celo2 for learned rules that diverge).
    """

    rate: eqx.AbstractVar[PyTree]
    power: eqx.AbstractVar[PyTree]
    decay: eqx.AbstractVar[PyTree]

    @property
    @abstractmethod
    def width(self) -> int:
        """How many numbers `context` has for each leaf."""

    @abstractmethod
    def direct(
        self, state: State, theta: list[Array], gradient: list[Array], context: Float[Array, "leaf width"]
    ) -> tuple[State, Float[Array, " n"]]:
        """The network's next memory, and u of every number, leaf after leaf."""

    def step(self, state: State, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        count, dtype = len(leaves), jnp.result_type(*leaves)
        return self.conditioned(state, leaves, gradient, jnp.zeros((count, self.width), dtype), jnp.zeros(count, dtype))

    def conditioned(
        self,
        state: State,
        leaves: list[Array],
        gradient: list[Array],
        context: Float[Array, "leaf width"],
        log_factor: Float[Array, " leaf"],
    ) -> tuple[State, list[Array]]:
        """`step`, as another network wants it.

        Args:
            context: added to what the first layer of the network sees, for all numbers of a leaf.
            log_factor: each leaf moves exp of it times as far.
        """
        rates = zip(spread(self.rate, leaves, "learned rule: rate"), leaves, strict=True)
        after, u = self.direct(state, leaves, gradient, context)
        # of both at once: a mean over every leaf, [leaf, 2]
        squares = mean_squares(jnp.stack([joined(gradient), u], axis=1), leaves)
        lengths = jnp.exp(
            log_factor
            + 0.5 * value(self.power) * jnp.log(squares[:, 0])
            - 0.5 * jnp.log(squares[:, 1])
            - value(self.decay) * jnp.log1p(state.count)
        )
        rate = joined([jnp.broadcast_to(rate, leaf.shape) for rate, leaf in rates])
        return after, split(joined(leaves) - rate * over_numbers(lengths[:, None], leaves)[:, 0] * u, leaves)

    def __check_init__(self):
        number = value(self.power)
        if jnp.ndim(number) or jnp.ndim(value(self.decay)):
            raise ValueError(f"{type(self).__name__}: expected power and decay as single numbers, got {number}.")


class Averages(eqx.Module):
    """The memory of a `LearnedMLP`: moving averages of every number's gradient."""

    count: Float[Array, ""]
    first: Float[Array, "average n"]
    second: Float[Array, " n"]


class LearnedMLP(Coordinatewise):
    """A small MLP per number, on gradients and their moving averages.

    Metz et al. 2022, "VeLO: Training Versatile Learned Optimizers by Scaling Up", https://arxiv.org/abs/2211.09760,
    for the inputs; Celo2 for what is done to them (normalised going in and out, no magnitude that the network says):

        f = [g, m_1 …, v^(−1/2), g v^(−1/2), m_1 v^(−1/2) …, g r^(−1/2), θ],  each divided by its rms over the leaf
        u = skip · f + out · tanh(f W + b)

    with momenta m_i at several decays, second moment v, and r its approximation by row and column means (Adafactor;
    v itself for leaves that are no matrices). Make one with `learned_mlp`.

    Differs from the papers in: the linear part `skip`, by which a fresh rule is a known one; step lengths are those of
    `Coordinatewise`, where Celo2 has a fixed schedule and VeLO a hypernetwork.
    """

    rate: PyTree
    power: PyTree
    decay: PyTree
    skip: Float[Array, " feature"]
    weight: Float[Array, "feature unit"]
    bias: Float[Array, " unit"]
    out: Float[Array, " unit"]
    averages: tuple[float, ...] = eqx.field(static=True)
    second: float = eqx.field(static=True)

    @property
    def width(self) -> int:
        return len(self.bias)

    def start(self, leaves: list[Array]) -> Averages:
        spread(self.rate, leaves, "learned rule: rate")
        zeros = jnp.zeros_like(joined(leaves))
        return Averages(jnp.zeros((), zeros.dtype), jnp.zeros((len(self.averages), *zeros.shape), zeros.dtype), zeros)

    def direct(self, state, theta, gradient, context):
        g = joined(gradient)
        kept = jnp.asarray(self.averages, g.dtype)[:, None]
        first = kept * state.first + (1 - kept) * g
        second = self.second * state.second + (1 - self.second) * g**2
        # of the bias-corrected moment, so that its root is of the gradient's size from the first step on
        corrected = second / (1 - self.second ** (state.count + 1))
        root = jax.lax.rsqrt(corrected + EPS)
        factored = jax.lax.rsqrt(joined([_factored(v) for v in split(corrected, theta)]) + EPS)
        features = [g, *first, root, g * root, *(m * root for m in first), g * factored, joined(theta)]
        features = jnp.stack(features, axis=1)
        features = features * over_numbers(jax.lax.rsqrt(mean_squares(features, theta)), theta)
        hidden = jnp.tanh(features @ self.weight + self.bias + over_numbers(context, theta))
        return Averages(state.count + 1, first, second), features @ self.skip + hidden @ self.out


class Cells(eqx.Module):
    """The memory of a `LearnedLSTM`: its layers' outputs and cells for every number."""

    count: Float[Array, ""]
    h: Float[Array, "layer n unit"]
    c: Float[Array, "layer n unit"]


class LearnedLSTM(Coordinatewise):
    """An LSTM per number, which reads its gradient and says where to go.

    Andrychowicz et al. 2016, "Learning to learn by gradient descent by gradient descent",
    https://arxiv.org/abs/1606.04474, section 2.1 and appendix A (how gradients go in, with p = 10):

        g → (log|g| / p, sign g) if |g| ≥ e^(−p), else (−1, e^p g)
        (h, c) = LSTM(…) in each layer,   u = out · h

    Make one with `learned_lstm`.

    Differs from the paper in: step lengths are those of `Coordinatewise`, where the paper multiplies the output by 0.1;
    the direction's sign is that of a gradient. The derivative with respect to the gradient is kept, which
    the paper drops; `FirstOrder` on the storey below drops it.
    """

    rate: PyTree
    power: PyTree
    decay: PyTree
    weights: list[Float[Array, "_inputs four_units"]]
    """Of each layer: rows for its inputs and its own last output, columns for the gates i, f, o and the candidate."""
    biases: list[Float[Array, " four_units"]]
    out: Float[Array, " unit"]
    p: float = eqx.field(static=True, default=10.0)

    @property
    def width(self) -> int:
        return 4 * len(self.out)

    def start(self, leaves: list[Array]) -> Cells:
        spread(self.rate, leaves, "learned rule: rate")
        n = joined(leaves)
        zeros = jnp.zeros((len(self.weights), len(n), len(self.out)), n.dtype)
        return Cells(jnp.zeros((), n.dtype), zeros, zeros)

    def direct(self, state, theta, gradient, context):
        g = joined(gradient)
        large = jnp.abs(g) >= jnp.exp(-self.p)
        logarithm = jnp.log(jnp.where(large, jnp.abs(g), 1.0)) / self.p
        # where it is small, the factor is of a number below one: the other branch must not overflow either
        small = jnp.exp(self.p) * jnp.where(large, 0.0, g)
        x = jnp.stack([jnp.where(large, logarithm, -1.0), jnp.where(large, jnp.sign(g), small)], axis=1)
        extra, hs, cs = over_numbers(context, theta), [], []
        for weight, bias, h, c in zip(self.weights, self.biases, state.h, state.c, strict=True):
            gates = jnp.concatenate([x, h], axis=1) @ weight + bias + extra
            keep_in, keep, keep_out, candidate = jnp.split(gates, 4, axis=1)
            c = jax.nn.sigmoid(keep) * c + jax.nn.sigmoid(keep_in) * jnp.tanh(candidate)
            x, extra = jax.nn.sigmoid(keep_out) * jnp.tanh(c), 0.0
            hs.append(x)
            cs.append(c)
        return Cells(state.count + 1, jnp.stack(hs), jnp.stack(cs)), x @ self.out


def learned_mlp(
    rate: PyTree,
    *,
    key: PRNGKeyArray,
    power: PyTree = 0.0,
    decay: PyTree = 0.0,
    units: int = 8,
    averages: tuple[float, ...] = (0.9, 0.99, 0.999),
    second: float = 0.999,
    like: str = "momentum",
) -> LearnedMLP:
    """A fresh `LearnedMLP`, whose network adds nothing yet to a known direction.

    Args:
        rate: a number (fixed), an array or `Positive` (learned), or one per leaf from `rates_for`.
        power, decay: numbers (fixed) or arrays (learned).
        units: of the hidden layer.
        averages: decays of the momenta.
        second: decay of the second moment.
        like: what it starts as: "gradient" (with power 1: gradient descent) or "momentum" (the first average).

    >>> import jax
    >>> from metatower import Positive
    >>> rule = learned_mlp(Positive(0.01), key=jax.random.key(0))
    >>> rule.weight.shape
    (11, 8)
    """
    if like not in ("gradient", "momentum"):
        raise ValueError(f"learned_mlp: expected like='gradient' or like='momentum', got {like!r}.")
    features = 5 + 2 * len(averages)
    return LearnedMLP(
        *(constant_unless_array(each) for each in (rate, power, decay)),
        skip=jnp.zeros(features).at[0 if like == "gradient" or not averages else 1].set(1.0),
        weight=jax.random.normal(key, (features, units)) / features**0.5,
        bias=jnp.zeros(units),
        out=jnp.zeros(units),
        averages=averages,
        second=second,
    )


def learned_lstm(
    rate: PyTree,
    *,
    key: PRNGKeyArray,
    power: PyTree = 0.0,
    decay: PyTree = 0.0,
    units: int = 20,
    layers: int = 2,
) -> LearnedLSTM:
    """A fresh `LearnedLSTM`; `rate`, `power` and `decay` as in `learned_mlp`, sizes as in the paper."""
    keys, sizes = jax.random.split(key, layers + 1), [2] + [units] * (layers - 1)
    shapes = [(inputs + units, 4 * units) for inputs in sizes]
    return LearnedLSTM(
        *(constant_unless_array(each) for each in (rate, power, decay)),
        weights=[jax.random.normal(k, shape) / shape[0] ** 0.5 for k, shape in zip(keys, shapes, strict=False)],
        # a forget gate that is open at first (Gers et al. 2000)
        biases=[jnp.zeros(4 * units).at[units : 2 * units].set(1.0) for _ in shapes],
        out=jax.random.normal(keys[-1], (units,)) / units**0.5,
    )


def joined(leaves: list[Array]) -> Float[Array, " n"]:
    """All numbers of a list of leaves, one leaf after the other."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])


def split(numbers: Float[Array, " n"], leaves: list[Array]) -> list[Array]:
    """Undoes `joined` for numbers of leaves of these shapes."""
    out, start = [], 0
    for leaf in leaves:
        out.append(numbers[start : start + leaf.size].reshape(leaf.shape))
        start += leaf.size
    return out


def over_numbers(values: Float[Array, "leaf width"], leaves: list[Array]) -> Float[Array, "n width"]:
    """What each leaf has, for each of its numbers."""
    rows = zip(values, leaves, strict=True)
    return jnp.concatenate([jnp.broadcast_to(row, (leaf.size, len(row))) for row, leaf in rows])


def mean_squares(values: Float[Array, "n feature"], leaves: list[Array]) -> Float[Array, "leaf feature"]:
    """The mean square over each leaf, and a little more than nothing where that is zero."""
    out, start = [], 0
    for leaf in leaves:
        out.append(jnp.mean(values[start : start + leaf.size] ** 2, axis=0))
        start += leaf.size
    return jnp.stack(out) + EPS


def _factored(v: Array) -> Array:
    """A second moment from its row and column means (Shazeer & Stern 2018, algorithm 2)."""
    if v.ndim < 2:
        return v
    rows, columns = jnp.mean(v, axis=-1, keepdims=True), jnp.mean(v, axis=-2, keepdims=True)
    return rows * columns / (jnp.mean(rows, axis=-2, keepdims=True) + EPS)
