"""What can be read off a memory."""

import numpy as np


def linear_probe(said: np.ndarray, truth: np.ndarray, ridge: float = 1e-3) -> float:
    """The share of the variance of `truth` that a linear map of `said` explains, on trials kept apart (R²).

    The map is fitted by ridge regression on the first half of the trials and judged on the second. 1: all of it is
    there; 0: no more than the mean; it may be negative.

    Args:
        said: what a memory says, `[trial, time, units]`.
        truth: what it should know, `[trial, time, values]`.
        ridge: the penalty, relative to the variance of a unit.

    >>> said = np.random.default_rng(0).normal(size=(200, 3, 4))
    >>> round(linear_probe(said, said[..., :1] - 2 * said[..., 1:2]), 3)
    1.0
    """
    half = len(said) // 2
    if half < 1:
        raise ValueError(f"linear_probe: expected at least two trials, got {len(said)}.")
    x, y = (np.asarray(each, np.float64).reshape(len(said), -1, each.shape[-1]) for each in (said, truth))
    fit_x, fit_y, test_x, test_y = (
        each.reshape(-1, each.shape[-1]) for each in (x[:half], y[:half], x[half:], y[half:])
    )
    centre, mean = fit_x.mean(axis=0), fit_y.mean(axis=0)
    a = (fit_x - centre).T @ (fit_x - centre)
    a += ridge * max(np.trace(a) / len(a), 1e-12) * np.eye(len(a))
    weights = np.linalg.solve(a, (fit_x - centre).T @ (fit_y - mean))
    wrong = test_y - mean - (test_x - centre) @ weights
    return float(1 - np.sum(wrong**2) / max(np.sum((test_y - test_y.mean(axis=0)) ** 2), 1e-12))
