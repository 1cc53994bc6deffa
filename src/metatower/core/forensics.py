"""Where did the first infinite or undefined number come from? One step is done again, run by run and step by step.

Nothing here knows what a tower is made of: learners and objectives say themselves what they run inside
(`Learner.stages`, `Learner.scored`, `Learner.judge`, `Objective.runs`).
"""

import dataclasses
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from metatower.core.contract import Data, Learner, Objective, Run, State
from metatower.core.keys import fork
from metatower.core.leaves import names, pick, put


@dataclass(frozen=True)
class Place:
    """One inner run on the way down to a fault. Steps and tasks are counted from 0."""

    storey: int
    """Of the learner that ran."""
    task: int
    """Which of the tasks in the batch above it."""
    key: tuple[int, ...]
    """The numbers of the key that the task was sampled with."""
    step: int | None = None
    """Which of its steps; None where the fault is in no single one (the query, the task, the backward pass)."""

    def __str__(self) -> str:
        step = "" if self.step is None else f"step {self.step} "
        return f"storey {self.storey}, {step}on task {self.task} (key {hex_of(self.key)})"


@dataclass(frozen=True)
class Fault:
    """The first number that was not finite."""

    what: str
    """"task data", "loss", "query loss", "gradient" or "state"; "rewards of" an environment."""
    leaf: str
    """Name of the first bad array."""
    storey: int
    """Of the learner whose number it is."""
    trail: tuple[Place, ...] = ()
    """From the step that was replayed down to the fault, outermost run first; empty if it is in that step itself."""

    @property
    def step(self) -> int | None:
        """The step of the innermost run on the trail."""
        return self.trail[-1].step if self.trail else None

    @property
    def task(self) -> int | None:
        """The task of the innermost run on the trail."""
        return self.trail[-1].task if self.trail else None

    @property
    def key(self) -> PRNGKeyArray | None:
        """The key of that task: `tasks.sample(fault.key)` makes it again."""
        return jax.random.wrap_key_data(jnp.array(self.trail[-1].key, jnp.uint32)) if self.trail else None

    def __str__(self) -> str:
        where = "; inside ".join(str(place) for place in reversed(self.trail)) or f"storey {self.storey}"
        return f"{self.what} `{self.leaf}` in {where}"


def locate(learner: Learner, state: State, data: Data, key: PRNGKeyArray) -> Fault | None:
    """The first infinite or undefined number in one `step` of `learner`, at the deepest storey that has one.

    Args:
        state: the state before the step, itself finite.

    Returns:
        None if the step, done again, is finite.
    """
    if (scored := learner.scored(state, key=key)) and (inner := _forward(scored[0], data, scored[1])):
        return inner
    stages = _stages(learner, state, data, key)
    for what, content in stages.items():
        tree, before = (learner.named(content), learner.named(state)) if what == "state" else (content, None)
        if leaf := first_bad(tree, before):
            if what != "loss" and scored and (inner := _backward(scored[0], data, scored[1], leaf)):
                return inner
            return Fault(what, leaf if leaf != "array" else what, learner.height)
    return None


def first_bad(tree: PyTree, before: PyTree | None = None) -> str | None:
    """The name of the first array in `tree` with a number that is not finite (and was, in `before`)."""
    flags = still_finite(_filled(tree, 0.0) if before is None else before, tree)
    flat, _ = jax.tree_util.tree_flatten_with_path(flags)
    bad = (jax.tree_util.keystr(path, simple=True, separator=".") for path, fine in flat if not fine)
    return next((name or "array" for name in bad), None)


def still_finite(before: PyTree, after: PyTree) -> PyTree:
    """For each array, whether no number in it has become infinite or undefined (a state may start with infinities)."""

    def fine(old: Array, new: Array) -> Bool[Array, ""]:
        if not jnp.issubdtype(new.dtype, jnp.inexact):
            return jnp.array(True)
        return jnp.all(jnp.isfinite(new) | (~jnp.isfinite(old) & ~jnp.isnan(new)) | jnp.isnan(old))

    return jax.tree.map(fine, eqx.filter(before, eqx.is_array), eqx.filter(after, eqx.is_array))


def hex_of(key: tuple[int, ...]) -> str:
    """The numbers of a key as one hexadecimal word."""
    return "0x" + "".join(f"{number:08x}" for number in key)


def numbers_of(key: PRNGKeyArray) -> tuple[int, ...]:
    """The numbers behind a typed key."""
    return tuple(int(number) for number in np.asarray(jax.random.key_data(key)).ravel())


def _forward(objective: Objective, data: Data, key: PRNGKeyArray) -> Fault | None:
    """The first fault in the inner runs of one evaluation of the objective."""
    for index, run in enumerate(objective.runs(data, key=key)):
        place = Place(run.learner.height, index, numbers_of(run.task_key))
        if jnp.isfinite(_score(run)):
            continue
        if leaf := first_bad(task := _sample(run)):
            return Fault("task data", leaf, run.learner.height, (place,))
        if fault := _in_run(run, task, place):
            return fault
        # finite when done step by step: rounding differs between programs, and the run hangs by that thread
        return Fault("query loss", "loss", run.learner.height, (place,))
    return None


def _in_run(run: Run, task, place: Place) -> Fault | None:
    """The first fault in one run, done as `run` and `Gradient.score` do it."""
    learner = run.learner
    key_adapt, key_query = fork(run.key, 2)
    key_start, key_steps = fork(key_adapt, 2)
    state = learner.start(key=key_start)
    if leaf := first_bad(learner.named(state), _filled(learner.named(state), jnp.inf)):
        return Fault("state", leaf, learner.height, (place,))
    for index, key in enumerate(fork(key_steps, learner.steps) if learner.steps else ()):
        after = _step(learner, state, task.support, key)
        if leaf := first_bad(learner.named(after), learner.named(state)):
            place = dataclasses.replace(place, step=index)
            fault = locate(learner, state, task.support, key) or Fault("state", leaf, learner.height)
            return dataclasses.replace(fault, trail=(place, *fault.trail))
        state = after
    if jnp.isfinite(_loss(learner, state, task.query, key_query)):
        return None
    judge = learner.judge(state)
    fault = None if judge is None else _forward(judge, task.query, key_query)
    fault = fault or Fault("query loss", "loss", learner.height)
    return dataclasses.replace(fault, trail=(place, *fault.trail))


def _backward(objective: Objective, data: Data, key: PRNGKeyArray, leaf: str) -> Fault | None:
    """The first run through which the gradient is not finite, where every run itself is."""
    for index, run in enumerate(objective.runs(data, key=key)):
        gradients = dict(zip(names(run.learner), _gradient(run), strict=True))
        # `leaf` is named from further up: leaves that nobody moves may have any gradient
        same = {name: g for name, g in gradients.items() if leaf.endswith(name)} or gradients
        if bad := first_bad(list(same.values())):
            name = list(same)[int(bad)]
            place = Place(run.learner.height, index, numbers_of(run.task_key))
            return Fault("gradient", name, run.learner.height + 1, (place,))
    return None


def _filled(tree: PyTree, number: float) -> PyTree:
    return jax.tree.map(lambda x: jnp.full(x.shape, number) if eqx.is_array(x) else x, tree)


# each jitted by itself, with the learner as an argument: compiled once, however many runs and steps are done again


@eqx.filter_jit
def _stages(learner, state, data, key):
    return learner.stages(state, data, key=key)


@eqx.filter_jit
def _step(learner, state, data, key):
    return learner.step(state, data, key=key)


@eqx.filter_jit
def _loss(learner, state, data, key):
    return learner.loss(state, data, key=key)[0]


@eqx.filter_jit
def _sample(run):
    return run.tasks.sample(run.task_key)


@eqx.filter_jit
def _score(run):
    return run.score()[0]


@eqx.filter_jit
def _gradient(run):
    def loss(leaves, key):
        return dataclasses.replace(run, learner=put(run.learner, leaves), key=key).score()

    leaves = pick(run.learner)
    return run.gradient.estimate(loss, leaves, run.gradient.start(leaves), key=run.key)[1]
