"""Exact values for Bernoulli bandits whose arms are uniform on [0, 1]."""

from functools import cache

import numpy as np

LONGEST = 150
"""Pulls up to which a table of Gittins indices is made: it has their cube of entries."""


@cache
def bayes_optimal_value(pulls: int, arms: int) -> float:
    """The most reward that any agent can expect of a trial, by dynamic programming over the posteriors.

    Arms are alike before they are pulled, so a state is a multiset of (successes, failures): 3,519 of them for 10
    pulls of 5 arms. Time and memory grow fast with the number of arms: 10 pulls of any number of arms or 50 of two
    take seconds, 100 pulls of 5 arms cannot be done.

    >>> round(bayes_optimal_value(10, 5), 4)
    6.66
    """
    if pulls < 0 or arms < 1:
        raise ValueError(f"bayes_optimal_value: expected at least 0 pulls and 1 arm, got {pulls} and {arms}.")

    @cache
    def value(tried: tuple[tuple[int, int], ...], left: int) -> float:
        if left == 0:
            return 0.0
        best = 0.0
        options = {*range(len(tried))} if len(tried) == arms else {-1, *range(len(tried))}
        done = set()
        for i in options:
            won, lost = (0, 0) if i < 0 else tried[i]
            if (won, lost) in done:
                continue
            done.add((won, lost))
            others = tried if i < 0 else tried[:i] + tried[i + 1 :]
            p = (won + 1) / (won + lost + 2)
            up, down = (tuple(sorted((*others, each))) for each in ((won + 1, lost), (won, lost + 1)))
            best = max(best, p * (1 + value(up, left - 1)) + (1 - p) * value(down, left - 1))
        return best

    return value((), pulls)


def known_best_value(pulls: int, arms: int) -> float:
    """The expected reward of who knows the arms: pulls · E[max p] = pulls · k / (k + 1)."""
    return pulls * arms / (arms + 1)


def random_value(pulls: int) -> float:
    """The expected reward of who pulls any arm."""
    return pulls / 2


def gittins_table(pulls: int, levels: int = 256) -> np.ndarray:
    """Finite-horizon Gittins indices of a Bernoulli arm with a uniform prior.

    The index of an arm with r pulls left is the pay λ per pull at which one does not care whether to retire with it
    (Niño-Mora 2011, "Computing a classical index for finite-horizon bandits"). By calibration: for every λ of a
    grid the optimal value V_r(s, f) = max(r λ, p (1 + V_{r−1}(s+1, f)) + (1−p) V_{r−1}(s, f+1)) is computed, and
    the index is where V_r − r λ vanishes, its last grid interval interpolated.

    Args:
        pulls: of the whole trial, at most `LONGEST`.
        levels: of λ.

    Returns:
        `[pulls + 1, pulls + 1, pulls + 1]`: by pulls left (entry 0 unused), successes, failures; only entries with
        pulls left + successes + failures ≤ `pulls` occur and are filled.
    """
    if not 1 <= pulls <= LONGEST:
        raise ValueError(
            f"gittins_table: expected 1 to {LONGEST} pulls, got {pulls}. The table grows with their cube; for longer "
            "trials compare with Thompson sampling and UCB with a tuned bonus."
        )
    grid = np.linspace(0, 1, levels + 1, dtype=np.float32)[1:]
    pay = grid[:, None, None]
    side = pulls + 1
    success, failure = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    p = ((success + 1) / (success + failure + 2)).astype(np.float32)
    table = np.zeros((side, side, side), np.float32)
    worth = np.zeros((levels, side, side), np.float32)  # V − r λ
    for left in range(1, pulls + 1):
        n = side - left  # successes and failures that can have been seen
        # one pull less of the retirement pay is left in V_{r−1}, which is what an immediate pull costs
        pulled = p[:n, :n] * (1 + worth[:, 1 : n + 1, :n]) + (1 - p[:n, :n]) * worth[:, :n, 1 : n + 1] - pay
        worth = np.zeros_like(worth)
        worth[:, :n, :n] = np.maximum(pulled, 0)
        above = np.sum(worth[:, :n, :n] > 1e-7, axis=0)  # the grid points below the index
        last = np.maximum(above - 1, 0)
        here, before = (np.take_along_axis(worth[:, :n, :n], np.maximum(i, 0)[None], 0)[0] for i in (last, last - 1))
        step = 1 / levels
        slope = np.where(above > 1, before - here, 1.0)
        root = grid[last] + step * np.clip(here / np.maximum(slope, 1e-9), 0, 1)
        table[left, :n, :n] = np.where(above > 0, root, grid[0] / 2)
    return table
