"""Judging a learner on tasks that it has not learned from; the same code at every storey."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray, UInt32

from metatower.core import Learner, Metrics, Task, Tasks
from metatower.core.errors import UserError
from metatower.core.keys import fork
from metatower.evaluation.statistics import Interval, interval
from metatower.training.progress import Progress, Silent

_STREAM = 0x6576616C
"""Folded into the seed, so that no evaluation shares its keys with a training run of the same seed."""
_SHOWN = ("loss", "accuracy")


class Fixed(Tasks):
    """The distribution that always gives the same task.

    At storey 2 this is one given world to meta-train on, and one to be judged on: `Fixed(train, test)`.
    """

    support: Tasks
    query: Tasks

    def sample(self, key: PRNGKeyArray) -> Task:
        del key
        return Task(self.support, self.query)


def episode_keys(seed: int | UInt32[Array, ""], first: int | UInt32[Array, ""], count: int) -> Key[Array, " count"]:
    """The keys of `count` episodes, `first` and on; the i-th depends on the seed and on i only."""
    root = jax.random.fold_in(jax.random.key(seed), _STREAM)
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(first + jnp.arange(count, dtype=jnp.uint32))


def evaluate(
    learner: Learner,
    tasks: Tasks,
    *,
    episodes: int,
    seed: int,
    chunk: int | None = None,
    show: Progress | None = None,
    title: str = "evaluating",
) -> dict[str, np.ndarray]:
    """One value per episode of the query loss and of each metric, after adapting to the support.

    An episode is one fresh task of the learner's own storey: a support and a query set for a learner that
    learns tasks, a whole fresh meta-training run on a new distribution for one that learns how to learn. Episode i
    of a seed is the same task for every learner, which is what makes differences paired.

    Args:
        learner: adapts by its own `steps`.
        tasks: what it is judged on; at storey 2 its tasks are pairs of `Tasks`.
        episodes: how many.
        seed: chooses the episodes.
        chunk: episodes worked on at the same time; 50 for learners of tasks and 4 above if None.
        show: how progress is shown; silent if None.
        title: the name of this job there.

    Returns:
        "loss" and every metric, each `[episodes]`.
    """
    return _in_chunks(_scores, learner, tasks, episodes, seed, chunk, show or Silent(), title)


def adaptation_scores(
    learner: Learner,
    tasks: Tasks,
    *,
    episodes: int,
    seed: int,
    steps: int,
    chunk: int | None = None,
    show: Progress | None = None,
    title: str = "adaptation curve",
) -> dict[str, np.ndarray]:
    """Query loss and metrics of each episode of `evaluate` after 0, 1, ..., `steps` steps of adaptation.

    Args:
        steps: how far to go, which may be beyond the learner's own `steps`.

    Returns:
        "loss" and every metric, each `[episodes, steps + 1]`.
    """
    if steps < 0:
        raise UserError(f"Expected at least 0 steps, got {steps}.")
    return _in_chunks(_curves, learner, tasks, episodes, seed, chunk, show or Silent(), title, steps)


def adaptation_curve(learner: Learner, tasks: Tasks, **how) -> dict[str, Interval]:
    """The means of `adaptation_scores`, which has the same arguments, with their intervals.

    Returns:
        "loss" and every metric, each an `Interval` of arrays `[steps + 1]`.
    """
    return {name: interval(values) for name, values in adaptation_scores(learner, tasks, **how).items()}


def _score(learner: Learner, tasks: Tasks, key: PRNGKeyArray) -> Metrics:
    key_task, key_adapt, key_query = fork(key, 3)
    task = tasks.sample(key_task)
    loss, metrics = learner.loss(learner.adapt(task.support, key=key_adapt), task.query, key=key_query)
    return {**metrics, "loss": loss}


def _curve(learner: Learner, tasks: Tasks, steps: int, key: PRNGKeyArray) -> Metrics:
    key_task, key_adapt, key_query = fork(key, 3)
    task = tasks.sample(key_task)
    key_start, key_steps = fork(key_adapt, 2)
    state = learner.start(key=key_start)

    def judge(state):
        loss, metrics = learner.loss(state, task.query, key=key_query)
        return {**metrics, "loss": loss}

    def body(state, key):
        state = learner.step(state, task.support, key=key)
        return state, judge(state)

    first = judge(state)
    _, rest = jax.lax.scan(body, state, fork(key_steps, steps))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)


# The learner and the tasks are arguments, not constants of the program: one compilation serves all learners and
# all distributions of the same structure.


@eqx.filter_jit
def _scores(learner: Learner, tasks: Tasks, seed: Array, first: Array, count: int) -> dict[str, Array]:
    return jax.vmap(lambda key: _score(learner, tasks, key))(episode_keys(seed, first, count))


@eqx.filter_jit
def _curves(learner: Learner, tasks: Tasks, seed: Array, first: Array, count: int, steps: int) -> dict[str, Array]:
    return jax.vmap(lambda key: _curve(learner, tasks, steps, key))(episode_keys(seed, first, count))


def _in_chunks(
    many: Callable[..., dict[str, Array]],
    learner: Learner,
    tasks: Tasks,
    episodes: int,
    seed: int,
    chunk: int | None,
    show: Progress,
    title: str,
    *more: int,
) -> dict[str, np.ndarray]:
    if episodes < 1:
        raise UserError(f"Expected at least one episode, got {episodes}.")
    if not 0 <= seed < 2**32:
        raise UserError(f"Expected a seed from 0 to 2**32 - 1, got {seed}.")
    chunk = min(episodes, chunk or (50 if learner.height == 0 else 4))
    pieces = []
    show.start(title, episodes)
    try:
        for first in range(0, episodes, chunk):
            # a last, partly filled chunk is computed in full and cut off: one shape, one compilation
            piece = jax.device_get(many(learner, tasks, jnp.uint32(seed), jnp.uint32(first), chunk, *more))
            pieces.append(piece)
            shown = {
                name: float(np.mean(values if values.ndim == 1 else values[:, -1]))
                for name, values in piece.items()
                if name in _SHOWN
            }
            show.advance(min(chunk, episodes - first), **shown)
    finally:
        show.finish()
    return {name: np.concatenate([piece[name] for piece in pieces])[:episodes] for name in pieces[0]}
