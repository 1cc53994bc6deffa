"""The gate that a learned improvement has to pass before it ships."""

import numpy as np

from metatower.evaluation.statistics import Interval, paired


def improvement(new: np.ndarray, old: np.ndarray, level: float = 0.95) -> Interval:
    """By how much the log loss of the new lies below that of the old, on the same units.

    The lower bound is one-sided at `level`: the chance that the mean lies below it is 1 − level. A loss of the new that
    is not finite makes a mean that is not finite.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return paired(np.log(old), np.log(new), 2 * level - 1)


def accepted(new: np.ndarray, old: np.ndarray, level: float = 0.95) -> bool:
    """Whether that lower bound is above zero. In doubt the old stays."""
    return bool(improvement(new, old, level).lo > 0)
