"""Optimisation problems, on which update rules are trained: a task is a problem."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.core import Task, Tasks
from metatower.nets.optimisee import KINDS, Problem, predicted, shapes
from metatower.tasks.chance import integer, uniforms

LOGITS = 3.0
"""Root mean square of the logits that labels of "logistic" are drawn by."""


class Problems(Tasks):
    """One distribution of optimisation problems: they share kind, spread and noise, and differ in all else.

    The covariance of the inputs x has eigenvalues spaced evenly on a log scale from 1 down to 1 / spread and a random
    rotation. On the support it is so exactly, by which the Hessian of a "quadratic" is known; it is also that of the
    layer that a "teacher" reads by. Each problem has its own rotation, solution, data, start and scales.

    The support is what is optimised on. The query of a quadratic is the same problem; those of the others are new
    examples without noise. A quadratic and a logistic regression start at zero, a network at random weights.

    With examples m, inputs d, units h and numbers n = d h + 2 h, x is `[m, n]` and y `[m]` (`Problem`).
    """

    kind: Int[Array, ""]
    """Its place in `KINDS`."""
    spread: Float[Array, ""]
    """The largest eigenvalue over the smallest, at least 1."""
    noise: Float[Array, ""]
    """Standard deviation of the targets' noise over their root mean square; of "logistic" the share of wrong labels."""
    reach: Float[Array, ""]
    """Scales of tensors are log-uniform from 1 / reach to reach; 1 for none."""
    inputs: int = eqx.field(static=True)
    units: int = eqx.field(static=True)
    examples: int = eqx.field(static=True)

    def sample(self, key: PRNGKeyArray) -> Task:
        sizes, m, d = shapes(self.inputs, self.units), self.examples, self.inputs
        counts = [math.prod(size) for size in sizes]
        n = sum(counts)
        chance = uniforms(key, (m, n), (m, n), (n, n), (d, d), (n,), (n,), (m,), (m,), (m,), (len(sizes),))
        design, fresh, rotation, narrow, solution, start = (_normal(each) for each in chance[:6])
        noise, (labels, flips, log_scale) = _normal(chance[6]), chance[7:]
        network = self.kind == KINDS.index("teacher")
        # the inputs of a network are the first columns; it has no use for the others
        inner = jnp.zeros((n, n)).at[:d, :d].set(_root(self.spread, narrow))
        mixing = jnp.where(network, inner, _root(self.spread, rotation))
        x = jnp.stack([_orthonormal(design) * m**0.5, fresh]) @ mixing
        fan_in = jnp.concatenate([jnp.full(count, size[0] ** -0.5) for count, size in zip(counts, sizes, strict=True)])
        # a network that is larger than at its start, or it would be nearly linear
        solution, start = jnp.where(network, 2 * solution * fan_in, solution), jnp.where(network, start * fan_in, 0.0)
        theta = _tensors(solution, sizes)
        wide, plain = (_clean(x[i], theta, solution, d, network) for i in (0, 1))
        size = jnp.sqrt(jnp.mean(wide**2))
        noisy = wide + self.noise * size * noise
        # one chance decides a label, the other whether it is told wrongly; a query is told rightly
        drawn, sure = (jnp.where(labels < jax.nn.sigmoid(LOGITS * each / size), 1.0, -1.0) for each in (wide, plain))
        told = jnp.where(flips < self.noise, -drawn, drawn)
        logistic, quadratic = self.kind == KINDS.index("logistic"), self.kind == KINDS.index("quadratic")
        begin = _tensors(start, sizes)
        scale = self.reach ** (2 * log_scale - 1)
        support = Problem(self.kind, x[0], jnp.where(logistic, told, noisy), begin, scale)
        other = Problem(self.kind, x[1], jnp.where(logistic, sure, plain), begin, scale)
        return Task(support, jax.tree.map(lambda a, b: jnp.where(quadratic, a, b), support, other))


class ProblemFamily(Tasks):
    """A family of distributions of problems: a task of storey 2 is a pair of `Problems`, a distribution twice.

    Kind, spread and noise are drawn per distribution, spread and noise on a log scale. Problems come from a continuum,
    so that no two of them are the same, whichever of the pair they are drawn from. `Pooled(family)` is what storey 1
    trains an update rule on.

    Args:
        kinds: names from `KINDS`; one of them per distribution.
        spread: least and largest ratio of eigenvalues, at least 1.
        noise: least and largest noise, above zero and at most 1, see `Problems.noise`.
        reach: scales of tensors are log-uniform from 1 / reach to reach; 1 for none. Celo's augmentation has 1000.
        inputs, units: of the network, which also say how many numbers a linear problem has: units · (inputs + 2).
        examples: per problem; at least as many as numbers.
    """

    spread: Float[Array, "2"]
    noise: Float[Array, "2"]
    reach: Float[Array, ""]
    kinds: tuple[str, ...] = eqx.field(static=True)
    inputs: int = eqx.field(static=True)
    units: int = eqx.field(static=True)
    examples: int = eqx.field(static=True)

    def __init__(
        self,
        kinds: tuple[str, ...] = ("quadratic", "logistic"),
        spread: tuple[float, float] = (1.0, 100.0),
        noise: tuple[float, float] = (0.01, 0.1),
        reach: float = 10.0,
        inputs: int = 5,
        units: int = 3,
        examples: int = 128,
    ):
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown or not kinds:
            raise ValueError(f"ProblemFamily: expected kinds from {sorted(KINDS)}, got {list(kinds)}.")
        if not (1 <= spread[0] <= spread[1] and 0 < noise[0] <= noise[1] <= 1 <= reach):
            raise ValueError(
                f"ProblemFamily: expected 1 <= spread, 0 < noise <= 1 and 1 <= reach, the least first, got spread "
                f"{spread}, noise {noise} and reach {reach}."
            )
        least = sum(math.prod(size) for size in shapes(inputs, units))
        if min(inputs, units) < 1 or examples < least:
            raise ValueError(
                f"ProblemFamily: expected at least one input, one unit and {least} examples, as many as there are "
                f"numbers, got {inputs}, {units} and {examples}."
            )
        self.kinds, self.inputs, self.units, self.examples = tuple(kinds), inputs, units, examples
        self.spread, self.noise, self.reach = (jnp.asarray(each, jnp.float32) for each in (spread, noise, reach))

    def sample(self, key: PRNGKeyArray) -> Task:
        (own,) = uniforms(key, (3,))
        numbers = jnp.asarray([KINDS.index(kind) for kind in self.kinds])
        member = Problems(
            numbers[integer(own[0], len(self.kinds))],
            _between(self.spread, own[1]),
            _between(self.noise, own[2]),
            self.reach,
            self.inputs,
            self.units,
            self.examples,
        )
        return Task(member, member)


def spectrum(spread: Float[Array, ""], count: int) -> Float[Array, " count"]:
    """So many eigenvalues from 1 down to 1 / spread, spaced evenly on a log scale.

    >>> [f"{each:.2f}" for each in spectrum(jnp.array(100.0), 3)]
    ['1.00', '0.10', '0.01']
    """
    return spread ** -jnp.linspace(0.0, 1.0, count)


def _root(spread: Float[Array, ""], normal: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """What gives inputs of unit covariance that spectrum, turned at random."""
    return jnp.sqrt(spectrum(spread, len(normal)))[:, None] * _orthonormal(normal).T


def _orthonormal(normal: Float[Array, "m n"]) -> Float[Array, "m n"]:
    """Orthonormal columns in random directions, all as likely, by reflections (Stewart 1980; m at least n).

    Not by `jnp.linalg.qr`: a program with batches of it was once seen to hang (jax 0.10.2), why is not known.
    """
    m, n = normal.shape

    def reflect(columns, each):
        v, i = each
        v = jnp.where(jnp.arange(m) < i, 0.0, v)
        sign = jnp.where(v[i] < 0, -1.0, 1.0)
        u = v.at[i].add(sign * jnp.sqrt(jnp.sum(v**2)))
        columns = columns - (2 / jnp.sum(u**2)) * jnp.outer(u, u @ columns)
        return columns, sign

    columns, signs = jax.lax.scan(reflect, jnp.eye(m, n), (normal.T, jnp.arange(n)), reverse=True)
    return -columns * signs


def _clean(x: Array, theta: list[Array], numbers: Array, inputs: int, network: Array) -> Float[Array, " example"]:
    """Targets without noise."""
    return jnp.where(network, predicted(theta, x[:, :inputs]), x @ numbers)


def _tensors(numbers: Float[Array, " n"], sizes: list[tuple[int, ...]]) -> list[Array]:
    """All numbers of the parameters, tensor after tensor, as tensors."""
    out, at = [], 0
    for size in sizes:
        out.append(numbers[at : at + math.prod(size)].reshape(size))
        at += math.prod(size)
    return out


def _normal(chance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jax.scipy.special.ndtri(jnp.clip(chance, 1e-6, 1 - 1e-6))


def _between(bounds: Float[Array, "2"], share: Float[Array, ""]) -> Float[Array, ""]:
    """Log-uniform: a share of 0 gives the least, of 1 the largest."""
    return bounds[0] * (bounds[1] / bounds[0]) ** share
