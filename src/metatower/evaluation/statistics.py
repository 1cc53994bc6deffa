"""Means with intervals: what every printed number is made of."""

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


def gain(difference: Interval | tuple[float, float], metric: str) -> bool:
    """Whether the whole interval of a difference lies on the better side of zero.

    Args:
        difference: of the new against the old, or its two bounds.
        metric: tells which side is better.
    """
    lo, hi = (difference.lo, difference.hi) if isinstance(difference, Interval) else difference
    return bool(lo > 0) if metric in HIGHER_IS_BETTER else bool(hi < 0)
