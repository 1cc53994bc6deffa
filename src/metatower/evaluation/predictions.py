"""What learners of distributions say of the tasks of held-out distributions, and how well ensembles of them know it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from scipy import special

from metatower.core import Expected, Learner, Tasks
from metatower.core.keys import fork
from metatower.evaluation.episodes import episode_keys
from metatower.training.progress import Progress, Silent

LEVELS = np.arange(0.05, 1.0, 0.05)
"""Quantiles at which calibration is looked at."""


@dataclass(frozen=True)
class Predictions:
    """Outputs for the queries of tasks of distributions, after several numbers of inner steps each."""

    truth: np.ndarray
    """`[distribution, task, query, output]`."""
    said: np.ndarray
    """`[distribution, task, number of steps, query, output]`."""
    after: tuple[int, ...]

    def losses(self) -> dict[int, np.ndarray]:
        """The squared error after each number of inner steps, `[distribution]`."""
        errors = np.mean((self.said - self.truth[:, :, None]) ** 2, axis=(1, 3, 4))
        return {n: errors[:, i] for i, n in enumerate(self.after)}


def predictions(
    learner: Learner,
    family: Tasks,
    after: Sequence[int],
    *,
    episodes: int,
    seed: int,
    tasks: int,
    chunk: int = 50,
    show: Progress | None = None,
    title: str = "predicting",
) -> Predictions:
    """What a learner of storey 1 says after a run of its own `steps` on each of `episodes` distributions.

    Distributions, the tasks that are learned from and those that are judged are the same for every learner, and those
    of `evaluate` with the same seed.

    Args:
        learner: its `result` is a learner of tasks, or an `Expected` of one.
        after: numbers of inner steps, ascending.
        tasks: of each distribution.
    """
    show, pieces = show or Silent(), []
    chunk = min(chunk, episodes)
    show.start(title, episodes)
    try:
        for first in range(0, episodes, chunk):
            pieces.append(
                jax.device_get(_predict(learner, family, episode_keys(seed, first, chunk), tuple(after), tasks))
            )
            show.advance(min(chunk, episodes - first))
    finally:
        show.finish()
    truth, said = (np.concatenate([piece[i] for piece in pieces])[:episodes] for i in (0, 1))
    return Predictions(truth, said, tuple(after))


def learner_of_tasks(learner: Any, state: Any) -> Any:
    """The learner of tasks, storey 0, that a run of a learner of storey 1 has ended with."""
    result = learner.result(state)
    return result.learner if isinstance(result, Expected) else result


@eqx.filter_jit
def _predict(learner: Any, family: Tasks, keys: Key[Array, " episode"], after: tuple[int, ...], tasks: int):
    def one(key):
        key_task, key_adapt, key_query = fork(key, 3)
        pair = family.sample(key_task)
        below = learner_of_tasks(learner, learner.adapt(pair.support, key=key_adapt))

        def on(key):
            key_task, key_run = fork(key, 2)
            task = pair.query.sample(key_task)
            start = below.start(key=key_run)

            def body(state, key):
                state = below.step(state, task.support, key=key)
                return state, below.result(state).net(task.query.x)

            _, said = jax.lax.scan(body, start, fork(key_run, max(after)))
            first = below.result(start).net(task.query.x)
            return task.query.y, jnp.concatenate([first[None], said])[jnp.array(after)]

        return jax.vmap(on)(fork(key_query, tasks))

    return jax.vmap(one)(keys)


def mixture_nll(truth: np.ndarray, members: np.ndarray, sigma: float) -> np.ndarray:
    """Mean negative log-density of the truth under an even mixture of normals around what the members say.

    Args:
        truth: `[distribution, ...]`.
        members: `[member, distribution, ...]`.
        sigma: the standard deviation of each normal.

    Returns:
        `[distribution]`, in nats.

    >>> float(np.round(mixture_nll(np.zeros((1, 2)), np.zeros((3, 1, 2)), 1.0)[0], 4))
    0.9189
    """
    logs = -0.5 * ((truth - members) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
    density = special.logsumexp(logs, axis=0) - np.log(len(members))
    return -density.reshape(len(truth), -1).mean(axis=1)


def calibration_error(truth: np.ndarray, members: np.ndarray, sigma: float) -> np.ndarray:
    """How far the share of truths below each quantile of the mixture is from what it should be: 0 if calibrated.

    Kuleshov, Fenner & Ermon 2018, "Accurate Uncertainties for Deep Learning Using Calibrated Regression", equation 9,
    with absolute values, as a mean over `LEVELS`; arguments as in `mixture_nll`.

    Returns:
        `[distribution]`.
    """
    below = special.ndtr((truth - members) / sigma).mean(axis=0).reshape(len(truth), -1)
    shares = (below[:, None, :] <= LEVELS[None, :, None]).mean(axis=2)
    return np.abs(shares - LEVELS).mean(axis=1)


def best_sigma(truth: np.ndarray, members: np.ndarray) -> float:
    """The standard deviation with the best mean `mixture_nll`; to be chosen on other distributions than are judged."""
    grid = np.geomspace(0.02, 3.0, 60)
    return float(grid[np.argmin([mixture_nll(truth, members, sigma).mean() for sigma in grid])])
