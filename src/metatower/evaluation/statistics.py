"""Means with intervals: what every printed number is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from metatower.core.errors import UserError

SHARES = ("accuracy",)
"""Metrics that are shares of 1, shown as percentages."""
HIGHER_IS_BETTER = (*SHARES, "return")
"""Metrics of which more is better; of every other one, losses above all, less is better."""


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval; floats, or arrays of equal shape for a curve."""

    mean: Any
    lo: Any
    hi: Any
    n: int
    """How many independent units were averaged."""


def interval(values: np.ndarray, level: float = 0.95) -> Interval:
    """Student's t interval of the mean over the first axis.

    Values that are not finite make a mean that is not finite: nothing is left out silently. A single value has
    an infinite interval.

    Args:
        values: `[n, ...]`, one value or one curve per independent unit.
        level: the confidence, between 0 and 1.
    """
    values = np.asarray(values, np.float64)
    n = len(values) if values.ndim else 0
    if n == 0:
        raise UserError("An interval needs at least one value, got none. Evaluate at least one episode.")
    if not 0 < level < 1:
        raise UserError(f"Expected a confidence level between 0 and 1, got {level}.")
    with np.errstate(invalid="ignore", over="ignore"):
        mean = values.mean(axis=0)
        if n == 1:
            half = np.full_like(mean, np.inf)
        else:
            half = stats.t.ppf((1 + level) / 2, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
        lo, hi = mean - half, mean + half
    if values.ndim == 1:
        return Interval(float(mean), float(lo), float(hi), n)
    return Interval(mean, lo, hi, n)


def paired(a: np.ndarray, b: np.ndarray, level: float = 0.95) -> Interval:
    """The interval of the mean of `a - b`, where the i-th values of both come from the same unit.

    Raises:
        UserError: the two have not the same shape.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise UserError(
            f"A paired difference needs the same units on both sides, got shapes {a.shape} and {b.shape}. "
            "Evaluate both with the same tasks, seed and number of episodes."
        )
    with np.errstate(invalid="ignore"):
        return interval(a - b, level)


def hierarchical(
    values: np.ndarray,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    of: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Interval:
    """The bootstrap interval of a mean over nested units: `[seed, distribution, task]`, or fewer levels.

    Units are drawn again with replacement level by level: seeds, then for each drawn seed distributions of *its own*,
    then tasks of theirs (Davison & Hinkley 1997, section 3.8). Levels that have one unit only say nothing of their
    spread and are left out: of one seed the interval is over its distributions. Percentiles of the resampled means are
    too narrow where the highest level has few units; they are taken further out, so that with one level the interval is
    about Student's (Hesterberg 2015, https://arxiv.org/abs/1411.5279, section 4.3, "expanded percentile interval"):
    at the tail Φ(−√(n / (n − 1)) · t). With two or three units there it spans about all resampled means, which is
    still less than Student's.

    Args:
        values: one axis per level, from the highest down.
        level: the confidence, between 0 and 1.
        resamples: how many.
        seed: of the draws: the same values give the same interval.
        of: another statistic than the mean, of the last axis, such as `middle_mean`.

    Returns:
        The mean, its interval, and as `n` the units of the lowest level. A value that is not finite makes all of them
        not finite.

    >>> found = hierarchical(np.random.default_rng(0).normal(size=(5, 20)))
    >>> bool(found.lo < 0 < found.hi), found.n
    (True, 100)
    """
    values = np.asarray(values, np.float64)
    if values.ndim == 0 or values.size == 0:
        raise UserError("An interval needs at least one value, got none. Evaluate at least one episode.")
    if not 0 < level < 1:
        raise UserError(f"Expected a confidence level between 0 and 1, got {level}.")
    of = of or (lambda values: values.mean(axis=-1))
    count, mean = values.size, float(of(values.ravel()))
    nested = values.reshape([size for size in values.shape if size > 1])
    if nested.ndim == 0:
        return Interval(mean, mean - np.inf, mean + np.inf, count)
    if not np.isfinite(mean):
        return Interval(mean, np.nan, np.nan, count)
    rng, means, many = np.random.default_rng(seed), [], max(1, 2_000_000 // nested.size)
    for first in range(0, resamples, many):
        size = min(many, resamples - first)
        drawn = np.broadcast_to(nested, (size, *nested.shape))
        for axis in range(1, nested.ndim + 1):
            # every unit of this level has its own draws: the axes before are kept apart, those after move along
            which = rng.integers(nested.shape[axis - 1], size=drawn.shape[: axis + 1])
            drawn = np.take_along_axis(drawn, which.reshape(*which.shape, *[1] * (nested.ndim - axis)), axis)
        means.append(of(drawn.reshape(size, -1)))
    n = len(nested)
    tail = stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf((1 + level) / 2, n - 1))
    lo, hi = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(mean, float(lo), float(hi), count)


def middle_mean(values: np.ndarray) -> np.ndarray:
    """The interquartile mean of the last axis: of the values without the lowest and the highest quarter.

    Robust where a few values are huge, as speed-ups are (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264).

    >>> float(middle_mean(np.array([0.0, 1.0, 3.0, 1000.0])))
    2.0
    """
    values = np.sort(np.asarray(values, np.float64), axis=-1)
    cut = values.shape[-1] // 4
    return np.asarray(values[..., cut : values.shape[-1] - cut].mean(axis=-1))


def gain(difference: Interval | tuple[float, float], metric: str) -> bool:
    """Whether the whole interval of a difference lies on the better side of zero.

    Args:
        difference: of the new against the old, or its two bounds.
        metric: tells which side is better.
    """
    lo, hi = (difference.lo, difference.hi) if isinstance(difference, Interval) else difference
    return bool(lo > 0) if metric in HIGHER_IS_BETTER else bool(hi < 0)


def verdict(difference: Interval | tuple[float, float], metric: str) -> str:
    """`a gain`, `worse`, or `no gain here` where the interval of a difference has both sides of zero.

    >>> verdict((-2.0, -1.0), "accuracy"), verdict((-2.0, 1.0), "loss")
    ('worse', 'no gain here')
    """
    lo, hi = (difference.lo, difference.hi) if isinstance(difference, Interval) else difference
    return "no gain here" if lo <= 0 <= hi else "a gain" if gain(difference, metric) else "worse"
