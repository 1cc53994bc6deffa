"""Judging a learner on tasks that it has not learned from; the same code at every storey."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PRNGKeyArray, UInt32

from metatower.core import Expected, Learner, Metrics, State, Task, Tasks
from metatower.core.errors import UserError
from metatower.core.keys import fork, fork_at
from metatower.core.sharding import mesh_of, on_each
from metatower.evaluation.statistics import Interval, interval
from metatower.training.progress import Progress, Silent

_STREAM = 0x6576616C
"""Folded into the seed, so that no evaluation shares its keys with a training run of the same seed."""
EXAMPLES = 1000
"""Of all tasks that are judged at the same time."""
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


@eqx.filter_jit
def sampled(tasks: Tasks, key: PRNGKeyArray) -> Task:
    """`tasks.sample(key)` as one program: operation by operation each would be compiled by itself, for seconds."""
    return tasks.sample(key)


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
        chunk: episodes worked on at the same time; if None 10 whole runs, or up to 50 tasks of a thousand examples
            in all.
        show: how progress is shown; silent if None.
        title: the name of this job there.

    Returns:
        "loss" and every metric, each `[episodes]`.
    """
    found = scores_after(
        learner, tasks, (learner.steps,), episodes=episodes, seed=seed, chunk=chunk, show=show, title=title
    )
    return {name: values[:, 0] for name, values in found.items()}


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
    return scores_after(
        learner, tasks, range(steps + 1), episodes=episodes, seed=seed, chunk=chunk, show=show, title=title
    )


def scores_after(
    learner: Learner,
    tasks: Tasks,
    after: Iterable[int],
    *,
    episodes: int,
    seed: int,
    chunk: int | None = None,
    show: Progress | None = None,
    title: str = "evaluating",
) -> dict[str, np.ndarray]:
    """Query loss and metrics of each episode of `evaluate` after so many steps of adaptation each.

    The steps are taken from the host: one compiled step and one compiled judgement serve runs of any length, which
    matters where a step is a whole storey and takes long to compile.

    Args:
        after: numbers of steps, ascending; other arguments as in `evaluate`.

    Returns:
        "loss" and every metric, each `[episodes, len(after)]`.
    """
    wanted = list(after)
    if episodes < 1:
        raise UserError(f"Expected at least one episode, got {episodes}.")
    if not 0 <= seed < 2**32:
        raise UserError(f"Expected a seed from 0 to 2**32 - 1, got {seed}.")
    show = show or Silent()
    chunk = min(episodes, chunk or (10 if learner.height else _how_many(tasks)))
    chunk = -(-chunk // jax.local_device_count()) * jax.local_device_count()
    if any(field.name == "steps" for field in dataclasses.fields(learner)):
        # the host counts the steps: learners that differ in this number only share their programs
        learner = _replace(learner, steps=1)
    moving = _moving(learner)
    pieces = []
    show.start(title, episodes)
    try:
        for first in range(0, episodes, chunk):
            # a last, partly filled chunk is computed in full and cut off: one shape, one compilation
            keys = episode_keys(seed, first, chunk)
            state, judged = _begin(moving, keys), []
            for step in range(wanted[-1] + 1):
                if step in wanted:
                    judged.append(jax.device_get(_judge(learner, tasks, keys, state)))
                if step < wanted[-1]:
                    state = _step(moving, tasks, keys, state, jnp.int32(step))
            piece = {name: np.stack([each[name] for each in judged], axis=1) for name in judged[0]}
            pieces.append(piece)
            shown = {name: float(np.mean(values[:, -1])) for name, values in piece.items() if name in _SHOWN}
            show.advance(min(chunk, episodes - first), **shown)
    finally:
        show.finish()
    return {name: np.concatenate([piece[name] for piece in pieces])[:episodes] for name in pieces[0]}


def _how_many(tasks: Tasks) -> int:
    """Tasks to be worked on at the same time: what a network makes of their examples has to fit in memory."""
    task = eqx.filter_eval_shape(lambda tasks: tasks.sample(jax.random.key(0)), tasks)
    examples = sum(
        max((len(x) for x in jax.tree.leaves(part) if x.ndim), default=1) for part in (task.support, task.query)
    )
    return max(1, min(50, EXAMPLES // examples))


def adaptation_curve(learner: Learner, tasks: Tasks, **how) -> dict[str, Interval]:
    """The means of `adaptation_scores`, which has the same arguments, with their intervals.

    Returns:
        "loss" and every metric, each an `Interval` of arrays `[steps + 1]`.
    """
    return {name: interval(values) for name, values in adaptation_scores(learner, tasks, **how).items()}


def judged_on(learner: Any, tasks: int) -> Any:
    """The learner of storey 1, whose finished runs are judged on so many tasks.

    Learners say how many in a field `judged`, of their own, of their `objective` (`Descend`), or of what they wrap as
    `learner` or `trainer`; one that has none stays as it is.
    """
    fields = {field.name for field in dataclasses.fields(learner)}
    if "judged" in fields:
        return dataclasses.replace(learner, judged=tasks)
    for name in ("objective", "learner", "trainer"):
        if name in fields and dataclasses.is_dataclass(getattr(learner, name)):
            return dataclasses.replace(learner, **{name: judged_on(getattr(learner, name), tasks)})
    return learner


def _moving(learner: Learner) -> Learner:
    """The learner as its steps need it: those that are judged on other numbers of tasks share the program of a step."""
    objective = getattr(learner, "objective", None)
    if not isinstance(objective, Expected):
        return learner
    return _replace(learner, objective=dataclasses.replace(objective, judged=None))


_replace: Any = dataclasses.replace  # of a field that only some learners have

# The learner, the tasks and the keys are arguments, not constants of the programs: one compilation serves all
# learners and all distributions of the same structure. Keys are used as `run` uses them, so that the state after
# `learner.steps` steps is that of `learner.adapt`.


@eqx.filter_jit
def _begin(learner: Learner, keys: Key[Array, " episode"]) -> State:
    def one(learner, key):
        return learner.start(key=fork(fork(key, 3)[1], 2)[0])

    return _over_episodes(one, (learner,), (keys,))


@eqx.filter_jit
def _step(learner: Learner, tasks: Tasks, keys: Key[Array, " episode"], state: State, index: Int[Array, ""]) -> State:
    def one(learner, tasks, index, key, state):
        key_task, key_adapt, _ = fork(key, 3)
        key_step = fork_at(fork(key_adapt, 2)[1], index)
        return learner.step(state, tasks.sample(key_task).support, key=key_step)

    return _over_episodes(one, (learner, tasks, index), (keys, state))


@eqx.filter_jit
def _judge(learner: Learner, tasks: Tasks, keys: Key[Array, " episode"], state: State) -> Metrics:
    def one(learner, tasks, key, state):
        key_task, _, key_query = fork(key, 3)
        loss, metrics = learner.loss(state, tasks.sample(key_task).query, key=key_query)
        return {**metrics, "loss": loss}

    return _over_episodes(one, (learner, tasks), (keys, state))


def _over_episodes(one: Callable, whole: tuple, each: tuple) -> Any:
    """`one(*whole, *episode)` for every episode, spread over the devices of this process."""

    def part(*arguments):
        fixed, episodes = arguments[: len(whole)], arguments[len(whole) :]
        return jax.vmap(lambda *episode: one(*fixed, *episode))(*episodes)

    devices = jax.local_devices()
    return part(*whole, *each) if len(devices) == 1 else on_each(mesh_of(devices), part, whole, each)
