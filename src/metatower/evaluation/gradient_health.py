"""Is the gradient of a storey worth following, and which estimator is best there?"""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from metatower.core import Gradient, Run, State, Tasks, Unrolled, pick, put
from metatower.core.errors import UserError
from metatower.core.keys import fork
from metatower.evaluation.statistics import Interval, interval
from metatower.gradients import NRES, PES, Evolution, FirstOrder, ScoreFunction, Truncated

_STREAM = 0x6865616C
"""Folded into the seed, so that no check shares its keys with a training run of the same seed."""
EXACT, FIRST, LAST, SMOOTH = "exact", "first order", "truncated", "evolution"
"""The estimators that `recommend` knows by name; one that begins with `OWN` is what the tower is trained by."""
OWN = "own"
REUSED = "noise reuse"
_SPLITS, _KEYS = 200, 64
"""Choices of keys that the means of several gradients are taken over, and how many keys these are of at most."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One estimator: what its gradients are like at one place, from key to key."""

    name: str
    norms: Float[np.ndarray, " draws"]
    """Euclidean length of each gradient; infinite or undefined ones included."""
    signal_to_noise: float
    """Length of the mean gradient over the root of the trace of the covariance of *one*; 0 if lost in the noise."""
    cosine: Interval
    """With the gradient of the first estimator on the same key."""
    finite: float
    """Share of gradients that are finite, of 1."""
    averaged: Interval | None = None
    """Cosine of the mean of 1, 2, ..., draws // 2 gradients with the mean gradient of the first estimator on the other
    half of the keys (64 at most), `[draws // 2]`: means over choices of keys, and bounds that hold nine of ten."""


@dataclasses.dataclass(frozen=True)
class Health:
    """What `gradient_health` found; `str` is a table, `evaluation.plots.gradient_health` a figure."""

    rows: tuple[Row, ...]
    """The first is what the others are compared with."""
    cosines: Float[np.ndarray, "estimator estimator"]
    """Mean over keys, of each estimator with each."""
    exponents: Float[np.ndarray, " draws"] | None
    """Largest Lyapunov exponent of an inner run per key, in 1 / step; None if its state has no numbers to follow."""
    steps: int
    """Of an inner run."""
    size: int
    """Learned numbers."""
    place: str = ""
    """Where it was measured, in words."""

    @property
    def caption(self) -> str:
        """What the figure shows, in words."""
        place = f"{self.place}: " if self.place else ""
        return f"{place}length of the gradient, a mark per key, and mean cosines between estimators."

    @property
    def exponent(self) -> float:
        """The mean exponent; 0 where none could be measured."""
        return 0.0 if self.exponents is None else float(np.mean(self.exponents))

    @property
    def diverged(self) -> float:
        """Share of inner runs, of 1, that leave all bounds by themselves."""
        return 0.0 if self.exponents is None else float(np.mean(np.isnan(self.exponents) | (self.exponents == np.inf)))

    @property
    def growth(self) -> float:
        """By what factor an inner run enlarges a small difference: exp(λ T). It enlarges the exact gradient as much."""
        if self.diverged:
            return math.inf
        return float(np.exp(np.minimum(self.exponent * self.steps, 700.0)))

    def table(self) -> list[tuple[str, ...]]:
        """A head, and a line per estimator: its lengths, signal to noise, cosine, and the share that is finite."""
        head = ("estimator", "norm", "mean", "largest", "signal/noise", f"cosine with {self.rows[0].name}", "finite")
        lines: list[tuple[str, ...]] = [head]
        for row in self.rows:
            ordered = np.sort(np.where(np.isnan(row.norms), np.inf, row.norms))
            cosine = f"{row.cosine.mean:.3f} [{row.cosine.lo:.3f}, {row.cosine.hi:.3f}]"
            lines.append(
                (
                    row.name,
                    f"{ordered[len(ordered) // 2]:.3g}",
                    f"{ordered.mean():.3g}",
                    f"{ordered[-1]:.3g}",
                    f"{row.signal_to_noise:.3g}",
                    cosine if math.isfinite(row.cosine.mean) else "-",
                    f"{100 * row.finite:.0f} %",
                )
            )
        return lines

    @property
    def chaos(self) -> str:
        """The exponent and what it amounts to, in words."""
        if self.exponents is None:
            return "not to be measured (its state has no numbers at its start)"
        if self.diverged:
            return f"none, {100 * self.diverged:.0f} % of the runs are not finite"
        steps = f"{self.steps} steps enlarge" if self.steps > 1 else "its one step enlarges"
        return f"{self.exponent:.3g} per step, so {steps} a difference {self.growth:.3g} times"

    def __str__(self) -> str:
        lines = self.table()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
            for line in lines
        ]
        return "\n".join([*table, f"Lyapunov exponent of the inner run: {self.chaos}", str(recommend(self))])


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What `recommend` goes by."""

    agreement: float = 0.95
    """A cheaper, biased estimator will do if the interval of its cosine with the exact gradient lies above this."""
    growth: float = 1e3
    """A run that enlarges a difference by more is chaotic: its exact gradient says nothing about the next step."""
    few: int = 8
    """Up to so many numbers forward mode costs no more than reverse mode (`Gradient.evaluations`), and less memory."""
    long: int = 50
    """Runs of more steps are better played in parts (`NRES`) than whole (`Evolution`), or forward than in reverse."""


@dataclasses.dataclass(frozen=True)
class Advice:
    """An estimator by name, why, and the `limit` for a `Switching` that keeps the exact one while it is well."""

    estimator: str
    reason: str
    limit: float

    def __str__(self) -> str:
        limit = f" Limit for `Switching`: {self.limit:.2g}." if math.isfinite(self.limit) else ""
        return f"Recommended: {self.estimator}. {self.reason}{limit}"


def gradient_health(
    tower: Any,
    tasks: Tasks,
    gradients: dict[str, Gradient] | None = None,
    *,
    draws: int = 16,
    seed: int = 0,
    state: State = None,
) -> Health:
    """Gradients of the top storey of `tower` by several estimators, on the same keys, and how chaotic its runs are.

    All is measured at one place: where training starts, or in `state`. Nothing is moved. Estimators that play runs in
    parts first get as many estimates as a run has parts, which do not count.

    Args:
        tower: a `Descend` on something with inner runs, as `lift` makes it.
        tasks: what it trains on.
        gradients: by name; the first is what the others are compared with. `estimators(tower)` if None.
        draws: keys, at least 2; each is a batch of tasks.
        seed: chooses the keys.
        state: a state of `tower`.

    Raises:
        UserError: the tower has no inner runs, or there are fewer than two draws.
    """
    if draws < 2:
        raise UserError(f"gradient_health: expected at least 2 draws, got {draws}.")
    key = jax.random.fold_in(jax.random.key(seed), _STREAM)
    objective, learn = getattr(tower, "objective", None), getattr(tower, "learn", None)
    inner = getattr(objective, "learner", None)
    if objective is None or inner is None:
        raise UserError(
            f"gradient_health: expected a tower of at least two storeys, got a {type(tower).__name__} without inner "
            "runs. Lift it: `lift(learner, rule, batch=...)`."
        )
    leaves = pick(objective, learn) if state is None else state.leaves
    gradients = estimators(tower) if gradients is None else gradients
    keys = fork(key, draws)
    found = [np.asarray(_gradients(tower, tasks, each, leaves, keys), np.float64) for each in gradients.values()]
    cosines = np.array([[_cosines(a, b) for b in found] for a in found])
    rows = tuple(
        _row(name, each, cosines[i, 0], _averaged(each, found[0]))
        for i, (name, each) in enumerate(zip(gradients, found, strict=True))
    )
    exponents = _exponents(tower, tasks, leaves, keys)
    with np.errstate(invalid="ignore"):
        means = cosines.mean(axis=-1)
    return Health(
        rows, means, None if exponents is None else np.asarray(exponents, np.float64), inner.steps, found[0].shape[1]
    )


def estimators(tower: Any) -> dict[str, Gradient]:
    """The estimators worth comparing for a tower, by name; the first is what the others are compared with.

    The exact gradient, the tower's own, first order where its runs have gradients of their own, the last quarter of a
    run of several steps, and evolution strategies. Where the tower is trained by `ScoreFunction` or by evolution
    strategies nothing is differentiated through: its own comes first, beside evolution on whole or on half runs.
    """
    own, inner = tower.gradient, tower.objective.learner
    name = f"{OWN} ({called(own)})"
    if isinstance(own, ScoreFunction):
        return {name: own, SMOOTH: Evolution(pairs=16)}
    if isinstance(own, Evolution | PES | NRES):
        half = inner.steps // 2 if inner.steps % 2 == 0 and inner.steps else max(1, inner.steps)
        return {name: own, REUSED: NRES(own.pairs, own.sigma, unroll=half, every_step=False)}
    found: dict[str, Gradient] = {EXACT: Unrolled()}
    if not isinstance(own, Unrolled | FirstOrder):
        found[name] = own
    if inner.first_order() is not inner:
        found[FIRST] = FirstOrder()
    if inner.steps > 1:
        found[LAST] = Truncated(max(1, inner.steps // 4))
    return {**found, SMOOTH: Evolution(pairs=16)}


def recommend(health: Health, thresholds: Thresholds | None = None) -> Advice:
    """An estimator for the storey, from what was measured. The rows are known by the names of the default estimators.

    0. If inner runs are not finite themselves: "none", as no estimator mends that. If nothing is differentiated through
       (`estimators`): the one with most signal to noise. If the tower's own estimator is always finite and has more of
       it than both the exact gradient and evolution strategies: its own.
    1. If the exact gradient is not always finite, or the run is chaotic (`growth`) and the exact gradient either has
       less signal to noise than evolution strategies or is no more than its own noise (two standard errors of its
       mean): `NRES` for `long` runs, else `Evolution`.
    2. If first order agrees with the exact gradient (`agreement`): `FirstOrder`, the cheapest.
    3. If truncation does: `Truncated`.
    4. For `few` numbers and `long` runs: `ForwardMode`.
    5. Otherwise the exact gradient, `Unrolled`.
    """
    t = thresholds or Thresholds()
    rows = {row.name: row for row in health.rows}
    exact, smooth = health.rows[0], rows.get("evolution")
    if health.diverged:
        share = f"{100 * health.diverged:.0f} %"
        return Advice("none", f"{share} of the inner runs are not finite: shorten or clip their steps first.", math.nan)
    own = next((row for row in health.rows if row.name.startswith(OWN)), None)
    if own is exact:
        best = max(health.rows, key=lambda row: (row.finite == 1, row.signal_to_noise))
        reason = f"Nothing is differentiated through; signal to noise is {_signals(*health.rows)}."
        return Advice(_kind(best), reason, math.nan)
    rivals = [row for row in (exact, smooth) if row is not None]
    if own is not None and own.finite == 1 and all(own.signal_to_noise > row.signal_to_noise for row in rivals):
        reason = f"It is the tower's own, and has most signal in its noise: {_signals(own, *rivals)}."
        return Advice(_kind(own), f"{reason} Its cosine with the exact gradient is {own.cosine.mean:.2f}.", math.nan)
    usual = exact if smooth is None else smooth
    sizes = usual.norms[np.isfinite(usual.norms)]
    limit = 10 * float(np.median(sizes) if smooth is None else np.max(sizes)) if len(sizes) else math.nan
    in_parts = "NRES" if health.steps > t.long else "Evolution"
    if exact.finite < 1:
        return Advice(in_parts, f"The exact gradient is not finite on {100 * (1 - exact.finite):.0f} % of keys.", limit)
    least = max(2 / math.sqrt(len(exact.norms)), 0.0 if smooth is None else smooth.signal_to_noise)
    if health.growth > t.growth and exact.signal_to_noise < least:
        return Advice(
            in_parts,
            f"The run is chaotic (differences grow {health.growth:.2g} times, over {t.growth:g}), the exact gradient "
            f"has little signal in its noise ({exact.signal_to_noise:.2g}, below {least:.2g}).",
            limit,
        )
    for name, cls in (("first order", "FirstOrder"), ("truncated", "Truncated")):
        row = rows.get(name)
        if row is not None and row.finite == 1 and row.cosine.lo >= t.agreement:
            reason = f"It agrees with the exact gradient: cosine {row.cosine.mean:.3f}, {row.cosine.lo:.3f} or more."
            return Advice(cls, reason, limit)
    if health.size <= t.few and health.steps > t.long:
        reason = f"{health.size} numbers and {health.steps} steps: exact, in constant memory."
        return Advice("ForwardMode", reason, limit)
    return Advice("Unrolled", "The exact gradient is finite, and no cheaper estimator agrees with it.", limit)


def lyapunov(run: Run, *, key: PRNGKeyArray) -> Float[Array, ""]:
    """The largest Lyapunov exponent of an inner run, over its own length: mean log growth of a difference, per step.

    By one Jacobian-vector product along each step, from a random direction of the state, brought back to length 1 after
    each (Benettin et al. 1980). Minus infinity where a difference vanishes, undefined where the run overflows. A float
    that only counts steps, as Adam has one, keeps its difference: such states have at least 0.
    """
    task, start = run.task(), run.start()
    floating, rest = eqx.partition(start, eqx.is_inexact_array)
    flat, structure = jax.tree.flatten(floating)
    drawn = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(fork(key, len(flat)), flat, strict=True)]

    def unit(direction):
        length = jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(direction)))
        safe = jnp.where(length > 0, length, 1)
        return jax.tree.map(lambda x: x / safe, direction), length

    def step(carry, index):
        floating, rest, direction = carry

        def go(floating):
            return eqx.partition(run.step(eqx.combine(floating, rest), task, index), eqx.is_inexact_array)

        floating, moved, rest = jax.jvp(go, (floating,), (direction,), has_aux=True)
        direction, length = unit(moved)
        return (floating, rest, direction), jnp.log(length)

    first, _ = unit(jax.tree.unflatten(structure, drawn))
    (end, _, _), logs = jax.lax.scan(step, (floating, rest, first), jnp.arange(run.learner.steps))
    bounded = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(end)]))
    return jnp.where(bounded, jnp.mean(logs), jnp.nan)


@eqx.filter_jit
def _gradients(tower: Any, tasks: Tasks, gradient: Gradient, leaves: list[Array], keys: Key[Array, " draws"]):
    """`[draws, numbers]`, one estimate after the other with the estimator's memory."""

    def at(leaves):
        return put(tower.objective, leaves, tower.learn)

    def one(memory, key):
        _, slope, memory = gradient.cross(at, tasks, leaves, memory, key=key)
        return memory, jnp.concatenate([jnp.ravel(g) for g in slope])

    steps = tower.objective.learner.steps
    parts = steps // max(1, gradient.played(steps)) - 1
    memory = gradient.begin(at, leaves, key=keys[0])
    if parts > 0:
        memory, _ = jax.lax.scan(one, memory, fork(jax.random.fold_in(keys[0], 1), parts))
    return jax.lax.scan(one, memory, keys)[1]


def _exponents(tower: Any, tasks: Tasks, leaves: list[Array], keys: Key[Array, " draws"]) -> Array | None:
    objective = put(tower.objective, leaves, tower.learn)
    start = eqx.filter_eval_shape(lambda: objective.learner.start(key=keys[0]))
    numbers = [x for x in jax.tree.leaves(start) if jnp.issubdtype(getattr(x, "dtype", bool), jnp.inexact)]
    if not numbers or objective.learner.steps == 0:
        return None

    return _measure(objective, tasks, keys)


@eqx.filter_jit
def _measure(objective: Any, tasks: Tasks, keys: Key[Array, " draws"]) -> Array:
    def one(key):
        key_run, key_direction = fork(key, 2)
        return lyapunov(next(iter(objective.runs(tasks, key=key_run))), key=key_direction)

    return jax.lax.map(one, keys)


def _cosines(a: Float[np.ndarray, "draws size"], b: Float[np.ndarray, "draws size"]) -> Float[np.ndarray, " draws"]:
    with np.errstate(all="ignore"):
        # scaled first: squares of large numbers overflow
        a, b = (x / np.max(np.abs(x), axis=1, keepdims=True) for x in (a, b))
        return np.sum(a * b, axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _averaged(found: Float[np.ndarray, "draws size"], reference: Float[np.ndarray, "draws size"]) -> Interval:
    """`Row.averaged`, from the inner products alone."""
    a, b = found[:_KEYS], reference[:_KEYS]
    draws, random, cosines = len(a), np.random.default_rng(0), []
    with np.errstate(all="ignore"):
        a, b = (x / np.max(np.abs(x)) for x in (a, b))
        among, across, others = a @ a.T, a @ b.T, b @ b.T
        for _ in range(_SPLITS):
            order = random.permutation(draws)
            ours, theirs = order[: draws // 2], order[-(draws // 2) :]
            along = np.cumsum(across[np.ix_(ours, theirs)].sum(axis=1))
            square = np.diag(among[np.ix_(ours, ours)].cumsum(axis=0).cumsum(axis=1))
            cosines.append(along / np.sqrt(square * others[np.ix_(theirs, theirs)].sum()))
        low, mean, high = (
            np.quantile(cosines, 0.05, axis=0),
            np.mean(cosines, axis=0),
            np.quantile(cosines, 0.95, axis=0),
        )
    return Interval(mean, low, high, _SPLITS)


def called(gradient: Gradient) -> str:
    """What an estimator is called: `Clipped`, or `Clipped of Relative`."""
    of = getattr(gradient, "of", None)
    return type(gradient).__name__ + (f" of {called(of)}" if of is not None and not isinstance(of, Unrolled) else "")


def _kind(row: Row) -> str:
    """The estimator of a row where nothing is differentiated, or of the tower's own."""
    named = {SMOOTH: "Evolution", REUSED: "NRES"}
    return named.get(row.name, row.name.removeprefix(f"{OWN} (").removesuffix(")"))


def _signals(*rows: Row) -> str:
    return ", ".join(f"{row.signal_to_noise:.2g} ({row.name})" for row in rows)


def _row(
    name: str, found: Float[np.ndarray, "draws size"], cosines: Float[np.ndarray, " draws"], averaged: Interval
) -> Row:
    with np.errstate(all="ignore"):
        norms = np.linalg.norm(found, axis=1)
        noise = found.var(axis=0, ddof=1).sum()
        signal = max(float(np.sum(found.mean(axis=0) ** 2) - noise / len(found)), 0.0)
        ratio = math.sqrt(signal / noise) if noise > 0 else math.inf if signal > 0 else 0.0
    ratio = ratio if math.isfinite(float(noise)) else 0.0
    return Row(name, norms, ratio, interval(cosines), float(np.mean(np.all(np.isfinite(found), axis=1))), averaged)
