"""Whole runs on held-out distributions set side by side: the same numbers for whatever makes a run."""

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from metatower.core import Learner, Selector, Tasks, pick, put
from metatower.evaluation.conclusion import Paired, Result
from metatower.evaluation.episodes import judged_on, scores_after
from metatower.evaluation.statistics import hierarchical, middle_mean
from metatower.training.progress import Progress

Tree = TypeVar("Tree")
BEST = "best-baseline"
"""What the best of all baselines is called in the paired rows."""


@dataclass(frozen=True)
class Sizes:
    """How far and on how much contestants are judged."""

    steps: int
    """K, of the run that contestants were made for."""
    episodes: int
    """Distributions."""
    far_episodes: int
    """The first so many of them are also judged after 10 K steps; 0 for none."""
    judged: int
    """Tasks of a distribution that a run is judged on."""
    chunk: int
    """Distributions that are worked on at the same time."""


@dataclass(frozen=True)
class Measured:
    """What the runs of one contestant did; seeds are a leading axis where there are more than one."""

    curves: dict[str, np.ndarray]
    """"loss" and each metric, `[..., distribution, K + 1]`, after 0 ... K steps; `[..., distribution, 1]`, after its
    own steps only, of a contestant that runs for another number of them."""
    far: dict[str, np.ndarray] | None
    """Loss and metrics after 10 K steps, each `[..., distribution]`; None where a run has no length to choose."""

    @property
    def whole(self) -> bool:
        """Whether there is a curve."""
        return self.curves["loss"].shape[-1] > 1

    @property
    def ends(self) -> dict[str, np.ndarray]:
        """Loss and metrics at the end of the run."""
        return {name: curve[..., -1] for name, curve in self.curves.items()}


def measure(learner: Learner, family: Tasks, sizes: Sizes, *, seed: int, show: Progress, title: str) -> Measured:
    """Runs a contestant on each of the family's distributions, and judges it on the disjoint pool of the same one.

    The distributions of a seed are the same for all contestants, which pairs them.

    Args:
        learner: of storey 1: `adapt` makes a whole run on a distribution. One that has `steps` of another number than
            K (0 for no run, 5 K for a longer one) is judged after those only; one without a field `steps` too.
        family: its tasks are pairs of distributions.
    """
    chosen = any(field.name == "steps" for field in dataclasses.fields(learner))
    learner = judged_on(learner, sizes.judged)
    how: dict[str, Any] = {"seed": seed, "chunk": sizes.chunk, "show": show, "title": title}
    whole = chosen and learner.steps == sizes.steps
    after = range(sizes.steps + 1) if whole else (learner.steps,)
    curves = scores_after(learner, family, after, episodes=sizes.episodes, **how)
    if not (whole and sizes.far_episodes):
        return Measured(curves, None)
    far = scores_after(learner, family, (10 * sizes.steps,), episodes=sizes.far_episodes, **how)
    return Measured(curves, {name: values[:, 0] for name, values in far.items()})


def together(seeds: list[Measured]) -> Measured:
    """The same contestant under several training seeds, each judged on distributions of its own."""
    curves = {name: np.stack([each.curves[name] for each in seeds]) for name in seeds[0].curves}
    far = [each.far for each in seeds if each.far is not None]
    if len(far) < len(seeds):
        return Measured(curves, None)
    return Measured(curves, {name: np.stack([each[name] for each in far]) for name in far[0]})


def speed_up(curve: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """How many times fewer steps a run takes until its loss is at most `threshold`.

    K over the first such step (at least 1): K for a run that starts below, 1 for one that just makes it, and 0 for one
    that does not within K, which is less than the truth.

    Args:
        curve: `[..., K + 1]`.
        threshold: `[...]`.

    >>> speed_up(np.array([[4.0, 2.0, 1.0], [4.0, 3.0, 2.5], [1.0, 1.0, 1.0]]), np.array([2.0, 2.0, 2.0])).tolist()
    [2.0, 0.0, 2.0]
    """
    reached = curve <= threshold[..., None]
    first = np.maximum(1, np.argmax(reached, axis=-1))
    return np.where(reached.any(axis=-1), (curve.shape[-1] - 1) / first, 0.0)


def rows(name: str, measured: Measured, threshold: np.ndarray, metric: str = "loss") -> list[Result]:
    """Every number of one contestant, with hierarchical bootstrap intervals.

    Metrics: "loss@0", "loss@K", "loss@10K", "area" (mean loss along the run, by trapezoids), "speed-up"
    (interquartile mean), and "accuracy@K" where there is one; with `metric` "accuracy" that is what all but the loss
    after K steps is of. What has no meaning for a contestant is left out.

    Args:
        threshold: what tuned MAML has after K steps, `[..., distribution]`.
        metric: "loss" or "accuracy".
    """
    curve = measured.curves[metric]
    found: dict[str, np.ndarray] = {}
    if measured.whole:
        found[f"{metric}@0"] = curve[..., 0]
    found |= {f"{each}@K": values for each, values in measured.ends.items() if each in ("loss", "accuracy")}
    if measured.far is not None:
        found[f"{metric}@10K"] = measured.far[metric]
    if measured.whole:
        found["area"] = (curve[..., 1:] + curve[..., :-1]).mean(axis=-1) / 2
        sign = -1 if metric == "accuracy" else 1
        found["speed-up"] = speed_up(sign * curve, sign * threshold)
    out = []
    for each, values in found.items():
        of = middle_mean if each == "speed-up" else None
        result = hierarchical(values, of=of)
        out.append(Result(name, each, result.mean, (result.lo, result.hi), result.n, "distribution"))
    return out


def ends(measured: Measured, metric: str = "loss") -> np.ndarray:
    """What runs are compared by, `[..., distribution]`: the accuracy, or the logarithm of the loss, at their ends.

    Differences of logarithms are ratios of losses.
    """
    if metric == "accuracy":
        return measured.ends["accuracy"]
    return np.log(np.maximum(measured.ends["loss"], 1e-12))


def best_of(baselines: dict[str, Measured], metric: str = "loss") -> str:
    """The baseline with the best mean of `ends`; one that is not finite never is."""
    sign = -1 if metric == "accuracy" else 1
    means = {name: sign * float(np.mean(ends(each, metric))) for name, each in baselines.items()}
    return min(means, key=lambda name: means[name] if np.isfinite(means[name]) else np.inf)


def differences(name: str, ours: Measured, baselines: dict[str, Measured], best: str) -> list[Paired]:
    """The log-loss (and accuracy, where there is one) of ours minus each baseline's, distribution by distribution.

    Args:
        best: which of the baselines also stands as `best-baseline`.
    """
    out = []
    for against, each in [*baselines.items(), (BEST, baselines[best])]:
        pairs = {"log-loss": (ends(ours), ends(each))}
        if "accuracy" in ours.ends and "accuracy" in each.ends:
            pairs["accuracy"] = ends(ours, "accuracy"), ends(each, "accuracy")
        for metric, (mine, theirs) in pairs.items():
            found = hierarchical(mine - theirs)
            out.append(Paired(name, against, metric, found.mean, (found.lo, found.hi)))
    return out


def shuffled(start: Tree, learned: Tree, key: PRNGKeyArray, learn: Selector | None = None) -> Tree:
    """`learned`, with what it has learned in the wrong places: the null that a gain must not survive.

    Of every leaf the differences to where it started from are permuted, so that their sizes stay and their meaning
    goes. Leaves of one number stay as they are.

    Args:
        start: the same learner, or part of one, before its training.
        learn: selects the leaves that are shuffled, all if None; the others stay as learned.
    """
    before, after = pick(start, learn), pick(learned, learn)
    keys = jax.random.split(key, len(after))
    moved = [
        old + jax.random.permutation(k, jnp.ravel(new - old)).reshape(new.shape)
        for old, new, k in zip(before, after, keys, strict=True)
    ]
    return put(learned, moved, learn)
