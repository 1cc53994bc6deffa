"""Regression tasks: the sinusoids of the MAML paper, and families of function distributions for storey 2."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.core import Task, Tasks
from metatower.nets.supervised import Examples
from metatower.tasks.chance import integer, uniforms

Wave = Callable[[Array, Array, Array], Array]
HALF_WIDTH = 5.0
"""Inputs lie in [-5, 5]."""


def _cycles(x, frequency, phase):
    return frequency * x / (2 * math.pi) + phase


def _fraction(x, frequency, phase):
    return jnp.mod(_cycles(x, frequency, phase), 1.0)


WAVES: dict[str, Wave] = {
    "sinusoid": lambda x, f, p: jnp.sin(2 * math.pi * _cycles(x, f, p)),
    "triangle": lambda x, f, p: 4 * jnp.abs(_fraction(x, f, p) - 0.5) - 1,
    "square": lambda x, f, p: jnp.tanh(6 * jnp.sin(2 * math.pi * _cycles(x, f, p))),
    "sawtooth": lambda x, f, p: 2 * _fraction(x, f, p) - 1,
    "bumps": lambda x, f, p: 2 * jnp.exp(-(((_fraction(x, f, p) - 0.5) / 0.15) ** 2)) - 1,
    # one cubic Chebyshev wiggle, whose stretch and place play the part of frequency and phase
    "polynomial": lambda x, f, p: (lambda z: 4 * z**3 - 3 * z)(
        jnp.clip(f * x / HALF_WIDTH / 1.5 + 0.6 * (p - 0.5), -1.0, 1.0)
    ),
    "step": lambda x, f, p: jnp.tanh(4 * f * (x - 1.6 * HALF_WIDTH * (p - 0.5))),
}
"""Shapes of height 1: functions of input x, angular frequency and phase (in cycles, 0 to 1)."""


class Sinusoids(Tasks):
    """y = A sin(x − φ), x ~ U[−5, 5], A ~ U[0.1, 5], φ ~ U[0, π] (Finn et al. 2017, section 5.1).

    Args:
        shots: support examples per task.
        queries: query examples per task.
        amplitude: least and largest A.
        phase: least and largest φ, in radians.
    """

    amplitude: Float[Array, "2"]
    phase: Float[Array, "2"]
    shots: int = eqx.field(static=True)
    queries: int = eqx.field(static=True)

    def __init__(
        self,
        shots: int = 10,
        queries: int = 10,
        amplitude: tuple[float, float] = (0.1, 5.0),
        phase: tuple[float, float] = (0.0, math.pi),
    ):
        if shots < 1 or queries < 1:
            raise ValueError(f"Sinusoids: expected at least one shot and one query, got {shots} and {queries}.")
        self.amplitude, self.phase = jnp.asarray(amplitude), jnp.asarray(phase)
        self.shots, self.queries = shots, queries

    def sample(self, key: PRNGKeyArray) -> Task:
        own, x = uniforms(key, (2,), (self.shots + self.queries, 1))
        x = HALF_WIDTH * (2 * x - 1)
        y = _between(self.amplitude, own[0]) * jnp.sin(x - _between(self.phase, own[1]))
        return Task(Examples(x[: self.shots], y[: self.shots]), Examples(x[self.shots :], y[self.shots :]))


class FunctionTasks(Tasks):
    """One distribution of functions: tasks share kind, frequency, offset, shift and noise, and differ in phase.

    y = offset + A · wave(frequency · (x − shift), phase), with A within 20 % and the frequency within 5 % of the
    distribution's own. Support targets carry noise; query targets do not, so the loss measures the function.
    """

    kind: Int[Array, ""]
    amplitude: Float[Array, ""]
    frequency: Float[Array, ""]
    offset: Float[Array, ""]
    shift: Float[Array, ""]
    noise: Float[Array, ""]
    pool: Int[Array, ""]
    """0, 1, ...: which of the parts that the phases are dealt to; no two of them share a task."""
    kinds: tuple[str, ...] = eqx.field(static=True)
    shots: int = eqx.field(static=True)
    queries: int = eqx.field(static=True)
    pools: int = eqx.field(static=True, default=2)

    def sample(self, key: PRNGKeyArray) -> Task:
        own, x, noise = uniforms(key, (4,), (self.shots + self.queries, 1), (self.shots, 1))
        amplitude = self.amplitude * (0.8 + 0.4 * own[0])
        frequency = self.frequency * (0.95 + 0.1 * own[1])
        # eight slices of the phase circle for each pool, dealt to them in turn
        phase = (self.pools * integer(own[2], 8) + self.pool + own[3]) / (8 * self.pools)
        x = HALF_WIDTH * (2 * x - 1)
        waves = [lambda x, wave=WAVES[kind]: wave(x, frequency, phase) for kind in self.kinds]
        y = self.offset + amplitude * jax.lax.switch(self.kind, waves, x - self.shift)
        noisy = y[: self.shots] + self.noise * jax.scipy.special.ndtri(jnp.clip(noise, 1e-6, 1 - 1e-6))
        return Task(Examples(x[: self.shots], noisy), Examples(x[self.shots :], y[self.shots :]))


class FunctionFamily(Tasks):
    """A family of function distributions: a task of storey 2 is a pair of `FunctionTasks`.

    Support and query are the same distribution with disjoint pools of tasks. Kind, amplitude, frequency,
    offset, input shift and noise are drawn per distribution.

    Args:
        kinds: names from `WAVES`; one of them per distribution.
        shots, queries: examples per task.
        amplitude, frequency, offset, shift, noise: least and largest value of each.
        pools: how many pools there are: more than two for a family that is judged on several occasions.
        judges: the pool that a distribution is judged on; it is learned from pool 0.
    """

    amplitude: Float[Array, "2"]
    frequency: Float[Array, "2"]
    offset: Float[Array, "2"]
    shift: Float[Array, "2"]
    noise: Float[Array, "2"]
    kinds: tuple[str, ...] = eqx.field(static=True)
    shots: int = eqx.field(static=True)
    queries: int = eqx.field(static=True)
    pools: int = eqx.field(static=True)
    judges: int = eqx.field(static=True)

    def __init__(
        self,
        kinds: tuple[str, ...] = ("sinusoid", "triangle", "square"),
        shots: int = 10,
        queries: int = 10,
        amplitude: tuple[float, float] = (0.5, 3.0),
        frequency: tuple[float, float] = (0.5, 2.0),
        offset: tuple[float, float] = (-1.0, 1.0),
        shift: tuple[float, float] = (-1.0, 1.0),
        noise: tuple[float, float] = (0.0, 0.3),
        pools: int = 2,
        judges: int = 1,
    ):
        unknown = sorted(set(kinds) - set(WAVES))
        if unknown or not kinds:
            raise ValueError(f"FunctionFamily: expected kinds from {sorted(WAVES)}, got {list(kinds)}.")
        if shots < 1 or queries < 1:
            raise ValueError(f"FunctionFamily: expected at least one shot and one query, got {shots} and {queries}.")
        if not 1 <= judges < pools:
            raise ValueError(f"FunctionFamily: expected judges from 1 to pools - 1, got {judges} and {pools} pools.")
        self.kinds, self.shots, self.queries, self.pools, self.judges = tuple(kinds), shots, queries, pools, judges
        self.amplitude, self.frequency = jnp.asarray(amplitude), jnp.asarray(frequency)
        self.offset, self.shift, self.noise = jnp.asarray(offset), jnp.asarray(shift), jnp.asarray(noise)

    def sample(self, key: PRNGKeyArray) -> Task:
        bounds = {name: getattr(self, name) for name in ("amplitude", "frequency", "offset", "shift", "noise")}
        (own,) = uniforms(key, (1 + len(bounds),))
        kind = integer(own[0], len(self.kinds))
        drawn = {name: _between(each, own[1 + i]) for i, (name, each) in enumerate(bounds.items())}

        def pool(number):
            return FunctionTasks(
                kind=kind,
                pool=jnp.array(number),
                kinds=self.kinds,
                shots=self.shots,
                queries=self.queries,
                pools=self.pools,
                **drawn,
            )

        return Task(pool(0), pool(self.judges))


class OfKind(Tasks):
    """The distributions of a family, all of one of its kinds.

    Args:
        family: draws everything else.
        kind: number in `family.kinds`; an array, so that one compiled program serves all kinds.
    """

    family: Tasks
    kind: Int[Array, ""]

    def sample(self, key: PRNGKeyArray) -> Task:
        task = self.family.sample(key)
        return eqx.tree_at(lambda task: (task.support.kind, task.query.kind), task, (self.kind, self.kind))


def _between(bounds: Float[Array, "2"], share: Float[Array, ""]) -> Float[Array, ""]:
    return bounds[0] + (bounds[1] - bounds[0]) * share
