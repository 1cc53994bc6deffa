"""The nouns of the library, and the two interchangeable parts that its arrows take."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from metatower.core.keys import fork, fork_at

Data = Any
"""What a learner learns from: arrays or an environment at storey 0, a `Tasks` at every storey above."""
State = Any
Metrics = dict[str, Float[Array, "..."]]
Scored = tuple[Float[Array, ""], Metrics]


class Objective(eqx.Module):
    """Something that can be scored on data. Its learnable leaves are its parameters."""

    @abstractmethod
    def loss(self, data: Data, *, key: PRNGKeyArray) -> Scored:
        """The scalar to be made small, and named numbers worth showing. Pure; `jit` and `vmap` apply."""

    @property
    def height(self) -> int:
        """How many storeys of learning happen inside one call of `loss`."""
        return 0

    def crossed_by(self, gradient: "Gradient") -> "Objective":
        """The same objective, whose inner runs (if it has any) are differentiated as `gradient` says."""
        del gradient
        return self

    @property
    def axis(self) -> str | None:
        """The mesh axis whose devices share the work of one `loss`, None if each does all of it."""
        return None

    def as_judge(self) -> "Objective":
        """The same objective as used to judge a finished run, where that may take more samples than a step does."""
        return self

    def seen(self, data: Data | None) -> PyTree:
        """What a learner remembers of the data of its last step besides the leaves it moved; of None, before any.

        Most objectives need nothing remembered. A network whose norms judge a query by the statistics of the support
        set does.
        """
        del data
        return None

    def after(self, seen: PyTree) -> "Objective":
        """The objective that judges other data in the light of what was `seen`."""
        del seen
        return self

    def runs(self, data: Data, *, key: PRNGKeyArray) -> "Iterable[Run]":
        """The inner runs that make up one evaluation of `loss`, so that each can be done again by itself."""
        del data, key
        return ()


class Learner(eqx.Module):
    """Something that learns from data. Its learnable leaves are what the storey above may learn.

    Subclasses give `start`, `step` and `loss`; everything else in the library follows from these three.
    `step` need not be a gradient step: it may store examples, tick a recurrent network or act in an
    environment. `steps` says how many of them `adapt` takes on one support set.
    """

    steps = 1

    @abstractmethod
    def start(self, *, key: PRNGKeyArray) -> State:
        """A fresh state, before any data."""

    @abstractmethod
    def step(self, state: State, data: Data, *, key: PRNGKeyArray) -> State:
        """The state after one more look at the data."""

    @abstractmethod
    def loss(self, state: State, data: Data, *, key: PRNGKeyArray) -> Scored:
        """How bad `state` is on `data`, which it must not learn from."""

    def adapt(self, support: Data, *, key: PRNGKeyArray) -> State:
        """The state after `steps` steps on `support`, from a fresh start."""
        return run(self, support, key=key)

    def update(self, state: State, data: Data, *, key: PRNGKeyArray) -> tuple[State, Metrics]:
        """`step`, with what a host loop may want to log of it."""
        return self.step(state, data, key=key), {}

    @property
    def height(self) -> int:
        """The storey this learner stands on: 0 learns a task, 1 learns how storey 0 should learn, ..."""
        return 0

    @property
    def axis(self) -> str | None:
        """The mesh axis whose devices share the work of one `loss`, None if each does all of it."""
        return None

    @property
    def parts(self) -> int:
        """Into how many equal parts the work of one `update` falls that devices can share, see `shared_over`.

        0 if into none, as in most learners: what is shared are the tasks of an `Expected`.
        """
        return 0

    def shared_over(self, axis: str) -> "Learner":
        """This learner, of which each device of the mesh axis does its part of an `update` and a `loss`."""
        raise TypeError(f"{type(self).__name__} has no parts to be shared over {axis}.")

    def first_order(self) -> "Learner":
        """This learner with the derivative of its own gradients taken as zero, if it has any."""
        return self

    def stages(self, state: State, data: Data, *, key: PRNGKeyArray) -> dict[str, PyTree]:
        """What one `step` computes, to find where it went wrong (an `OrderedDict` keeps the order under `jit`)."""
        return {"state": self.step(state, data, key=key)}

    def log_probability(self, state: State) -> Float[Array, ""]:
        """The log-probability of all that was drawn by chance on the way to `state`, as a function of the leaves.

        Zero where nothing was drawn, or where the derivative goes through what was. A learner that acts at random adds
        up the log-probabilities of its actions in its state and gives the sum here; then `ScoreFunction` can learn it.
        """
        del state
        return jnp.zeros(())

    def named(self, state: State) -> PyTree:
        """The state as a tree whose paths are names for people."""
        return state

    def scored(self, state: State, *, key: PRNGKeyArray) -> tuple[Objective, PRNGKeyArray] | None:
        """The objective that one `step` evaluates, and the key it does that with; None if it has none."""
        del state, key
        return None

    def judge(self, state: State) -> Objective | None:
        """The objective that `loss` evaluates on a query; None if it has none."""
        del state
        return None


def run(
    learner: Learner,
    support: Data,
    *,
    key: PRNGKeyArray,
    remat: bool = False,
    segment: int | str | None = None,
    last: int | None = None,
) -> State:
    """The state of `learner` after its `steps` steps on `support`.

    Args:
        remat: recompute each step in the backward pass instead of storing what happened inside it
            (memory then grows with the size of the state, not with the work of a step).
        segment: recompute the run in segments of so many steps, of which only the first state is stored; "sqrt" for
            about the square root of the steps (memory then grows with the root of the steps).
        last: only the last so many steps are differentiated (truncation); all of them if None.
    """
    key_start, key_steps = fork(key, 2)
    state = learner.start(key=key_start)
    if learner.steps == 0:
        return state

    def step(state, key):
        return learner.step(state, support, key=key), None

    def scan(state, keys):
        body = jax.checkpoint(step) if remat else step
        return body(state, keys[0]) if len(keys) == 1 else jax.lax.scan(body, state, keys)

    keys = fork(key_steps, learner.steps)
    if last is not None and last < learner.steps:
        state, _ = jax.lax.scan(step, state, keys[: learner.steps - last])
        state = jax.lax.stop_gradient(state)
        keys = keys[learner.steps - last :]
    length = near_root(len(keys)) if segment == "sqrt" else len(keys) if segment is None else int(segment)
    if length >= len(keys):
        return scan(state, keys)[0]
    whole = len(keys) - len(keys) % length
    scan_again = jax.checkpoint(scan)
    state, _ = jax.lax.scan(scan_again, state, keys[:whole].reshape(-1, length))
    return scan_again(state, keys[whole:])[0] if whole < len(keys) else state


def near_root(number: int) -> int:
    """A length of segments near the square root of `number`, if possible one that leaves no remainder to compile.

    And never a remainder of one step: XLA would compile it without a loop, to other roundings than the loop's.
    """
    root = math.isqrt(number - 1) + 1
    lengths = [d for d in range(1, number + 1) if root / 2 <= d <= 2 * root and (d == 1 or number % d != 1)]
    return min(lengths, key=lambda d: (number % d > 0, d + number // d))


class Task(eqx.Module):
    """What to learn from and what to be judged on. At storey 1 arrays; above it, both are `Tasks`."""

    support: Data
    query: Data


class Tasks(eqx.Module):
    """A distribution of tasks. Its array leaves are the distribution's parameters."""

    @abstractmethod
    def sample(self, key: PRNGKeyArray) -> Task:
        """One task; a pure function of the key and of the leaves, on the device."""


class Rule(eqx.Module):
    """How leaves move, given a gradient. Its learnable leaves are the rule's hyper-parameters."""

    @abstractmethod
    def start(self, leaves: list[Array]) -> State:
        """The rule's memory before the first step."""

    @abstractmethod
    def step(self, state: State, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        """The rule's next memory and the moved leaves."""


At = Callable[[list[Array]], Objective]
"""Makes an objective of the values of its leaves that move."""


class Gradient(eqx.Module):
    """How a gradient crosses a storey: how one inner run is scored, and how the score is differentiated."""

    of_the_loss: ClassVar[bool] = True
    """Whether the derivative of a score is that of its value, exactly or nearly: if so, it may be divided by that."""

    @abstractmethod
    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        """The loss of `learner` on the task's query after adapting to its support.

        The *value* is the same for every estimator; its *derivative* is the estimator's business.
        """

    def estimate(
        self,
        loss: Callable[[list[Array], PRNGKeyArray], Scored],
        leaves: list[Array],
        state: State,
        *,
        key: PRNGKeyArray,
    ) -> tuple[Scored, list[Array], State]:
        """The scored loss, its gradient with respect to `leaves`, and the estimator's next memory.

        By reverse mode, for all estimators that differ in how they score only.
        """
        scored, gradient = jax.value_and_grad(loss, has_aux=True)(leaves, key)
        return scored, gradient, state

    def start(self, leaves: list[Array]) -> State:
        """The estimator's memory before the first step; most have none."""
        del leaves
        return None

    def begin(self, at: At, leaves: list[Array], *, key: PRNGKeyArray) -> State:
        """The estimator's memory before the first step on the objective that `at` makes of leaves.

        `start`, but for estimators that remember more than leaves: the states of inner runs.
        """
        del at, key
        return self.start(leaves)

    def cross(
        self, at: At, data: Data, leaves: list[Array], state: State, *, key: PRNGKeyArray
    ) -> tuple[Scored, list[Array], State]:
        """`estimate`, of the objective that `at` makes of leaves, on `data`; this is what a storey calls.

        By `estimate` for all that need no more than the whole loss as a function. An estimator that plays runs in
        parts asks the objective for its `runs`, one that chooses among estimators lets the chosen one cross.
        """

        def loss(leaves, key):
            return at(leaves).crossed_by(self).loss(data, key=key)

        return self.estimate(loss, leaves, state, key=key)

    def evaluations(self, size: int) -> int:
        """How many times one estimate for `size` learned numbers evaluates the loss."""
        del size
        return 1

    def played(self, steps: int) -> int:
        """How many steps of an inner run of `steps` one evaluation plays."""
        return steps

    def loss_key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """The key with which `estimate(..., key=key)` evaluates the loss."""
        return key


class Run(eqx.Module):
    """One inner run: `learner` on one of `tasks`."""

    learner: Learner
    gradient: Gradient
    tasks: Tasks | None
    """None before there is any data; such a run can start, and no more."""
    task_key: PRNGKeyArray
    key: PRNGKeyArray

    def score(self) -> Scored:
        """The loss on the task's query after adapting to its support."""
        return self.gradient.score(self.learner, self.task(), key=self.key)

    # The same run by hand, with the keys of `run` and `core.gradient.score`: all of it is `score` of `Unrolled`.

    def task(self) -> Task:
        """What it learns from and is judged on."""
        if self.tasks is None:
            raise ValueError("Run: there is no data yet. Ask the objective for its `runs` on data.")
        return self.tasks.sample(self.task_key)

    def start(self) -> State:
        """The state before its first step."""
        return self.learner.start(key=fork(fork(self.key, 2)[0], 2)[0])

    def step(self, state: State, task: Task, index: Int[Array, ""]) -> State:
        """The state after step number `index`, counted from 0."""
        key = fork_at(fork(fork(self.key, 2)[0], 2)[1], index)
        return self.learner.step(state, task.support, key=key)

    def loss(self, state: State, task: Task) -> Scored:
        """How bad `state` is on the query."""
        return self.learner.loss(state, task.query, key=fork(self.key, 2)[1])
