"""The whole recursion: `Descend` makes a learner of an objective, `Expected` an objective of a learner."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Key, PRNGKeyArray, PyTree

from metatower.core.contract import Data, Gradient, Learner, Metrics, Objective, Rule, Run, Scored, State, Tasks
from metatower.core.gradient import Detached, Unrolled
from metatower.core.keys import fork
from metatower.core.leaves import Selector, names, pick, put, strong
from metatower.core.shares import mean_of_shares, mean_over_devices, own_share, own_weights, sum_over_devices
from metatower.core.totals import total_score


class Descent(eqx.Module):
    """The state of a `Descend`: what it has learned so far, and what its next step needs."""

    leaves: list[Array]
    """The learned leaves of the objective, in tree order."""
    rule: State
    """The rule's memory."""
    gradient: State
    """The gradient estimator's memory."""
    seen: PyTree = None
    """What the objective wants remembered of the last step's data (`Objective.seen`)."""


class Descend(Learner):
    """Learns an objective by moving its leaves along a gradient.

    Args:
        objective: what to make small; its learnable leaves are where a fresh run starts.
        rule: how leaves move.
        steps: how many steps one adaptation takes.
        gradient: how the gradient of the objective is obtained (`metatower.gradients`).
        learn: selects the leaves of the objective that move; all learnable ones if None.
    """

    objective: Any  # an Objective, a Rule: towers are walked by attribute, which types cannot follow
    rule: Any
    steps: int = eqx.field(static=True, default=1)
    gradient: Gradient = Unrolled()
    learn: Selector | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not (isinstance(self.steps, int) and self.steps >= 0):
            raise ValueError(f"Descend: expected steps as an integer of at least 0, got {self.steps!r}.")
        if not callable(getattr(self.objective, "loss", None)):
            raise TypeError(
                f"Descend takes an Objective (with `loss(data, *, key)`), got {type(self.objective).__name__}. "
                "Wrap a network as `metatower.nets.Supervised(net, loss)`, or a learner as `Expected(learner, batch)`."
            )

    def start(self, *, key: PRNGKeyArray) -> Descent:
        leaves = [strong(leaf) for leaf in pick(self.objective, self.learn)]
        if not leaves:
            raise ValueError(
                f"Descend: {type(self.objective).__name__} offers nothing to learn. What is learned are floating-point "
                "arrays: write a number as `jnp.array(0.5)` to have it learned, or look at `learn=`."
            )
        memory = self.gradient.begin(self._at, leaves, key=key)
        return Descent(leaves, self.rule.start(leaves), memory, self.objective.seen(None))

    def update(self, state: Descent, data: Data, *, key: PRNGKeyArray) -> tuple[Descent, Metrics]:
        (value, metrics), gradient, memory = self._estimate(state, data, key)
        return self._move(state, gradient, memory, data), {**metrics, "loss": value}

    def _estimate(self, state: Descent, data: Data, key: PRNGKeyArray) -> tuple[Scored, list[Array], State]:
        scored, gradient, memory = self.gradient.cross(self._at, data, state.leaves, state.gradient, key=key)
        return scored, mean_over_devices(gradient, self.objective.axis), memory

    def _move(self, state: Descent, gradient: list[Array], memory: State, data: Data) -> Descent:
        rule, leaves = self.rule.step(state.rule, state.leaves, gradient)
        return Descent(leaves, rule, memory, self._at(leaves).seen(data))

    def step(self, state: Descent, data: Data, *, key: PRNGKeyArray) -> Descent:
        return self.update(state, data, key=key)[0]

    def loss(self, state: Descent, data: Data, *, key: PRNGKeyArray) -> Scored:
        return self.judge(state).loss(data, key=key)

    def stages(self, state: Descent, data: Data, *, key: PRNGKeyArray) -> dict[str, PyTree]:
        (value, _), gradient, memory = self._estimate(state, data, key)
        named = OrderedDict(zip(names(self.objective, self.learn), gradient, strict=True))
        return OrderedDict(loss=value, gradient=named, state=self._move(state, gradient, memory, data))

    def named(self, state: Descent) -> PyTree:
        leaves = zip(names(self.objective, self.learn), state.leaves, strict=True)
        return OrderedDict([*leaves, ("rule", state.rule), ("gradient", state.gradient)])

    def scored(self, state: Descent, *, key: PRNGKeyArray) -> tuple[Objective, PRNGKeyArray]:
        return self.result(state).crossed_by(self.gradient), self.gradient.loss_key(key)

    def judge(self, state: Descent) -> Objective:
        return self.result(state).after(state.seen).as_judge()

    def result(self, state: Descent) -> Any:
        """The objective with the leaves that `state` has reached: what this learner returns to its user."""
        return self._at(state.leaves)

    def _at(self, leaves: list[Array]) -> Any:
        return put(self.objective, leaves, self.learn)

    @property
    def height(self) -> int:
        return self.objective.height

    @property
    def axis(self) -> str | None:
        return self.objective.axis

    def first_order(self) -> "Descend":
        return dataclasses.replace(self, gradient=Detached(self.gradient))


class Expected(Objective):
    """The expected loss of a learner on a distribution of tasks, after it has adapted to each.

    Args:
        learner: adapts to each task's support and is scored on its query.
        batch: tasks per evaluation of the loss.
        chunk: tasks worked on at the same time; all of them if None. Less needs less memory and
            often less time on a CPU, where a small working set stays in the cache.
        judged: tasks per evaluation when a finished run is judged (`Descend.loss`); `batch` if None.
        shared: the mesh axis over which the tasks are spread; set by `metatower.core.sharding`.
    """

    learner: Learner
    batch: int = eqx.field(static=True, default=1)
    chunk: int | None = eqx.field(static=True, default=None)
    judged: int | None = eqx.field(static=True, default=None)
    gradient: Gradient = Unrolled()
    shared: str | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not (isinstance(self.batch, int) and self.batch >= 1):
            raise ValueError(f"Expected: expected batch as an integer of at least 1, got {self.batch!r}.")
        for name in ("start", "step", "loss"):
            if not callable(getattr(self.learner, name, None)):
                raise TypeError(
                    f"Expected takes a Learner (start, step, loss), got {type(self.learner).__name__} without "
                    f"`{name}`. Make a learner of an objective with `Descend(objective, rule)`."
                )

    def loss(self, data: Tasks, *, key: PRNGKeyArray) -> Scored:
        if not callable(getattr(data, "sample", None)):
            raise TypeError(
                f"Expected over a learner of height {self.learner.height}: expected data with `sample(key)` (a "
                f"`Tasks`), got {type(data).__name__}. A learner of height n learns from tasks nested n deep."
            )
        keys = own_share(fork(key, self.batch), self.shared)
        if self.chunk is None or self.chunk >= len(keys):
            scores = over_tasks(lambda key: self._run(data, key).score(), keys)
            return mean_of_shares(scores, self.batch, self.shared)
        weights = own_weights(self.batch, self.shared)
        scored = total_score(
            lambda varied, key: varied[0]._run(varied[1], key).score(), (self, data), keys, weights, self.chunk
        )
        return sum_over_devices(scored, self.shared)

    def runs(self, data: Tasks | None, *, key: PRNGKeyArray) -> Iterable[Run]:
        return (self._run(data, key) for key in fork(key, self.batch))

    def _run(self, data: Tasks | None, key: PRNGKeyArray) -> Run:
        key_task, key_score = fork(key, 2)
        return Run(self.learner, self.gradient, data, key_task, key_score)

    @property
    def height(self) -> int:
        return self.learner.height + 1

    @property
    def axis(self) -> str | None:
        return self.shared or self.learner.axis

    def crossed_by(self, gradient: Gradient) -> "Expected":
        return dataclasses.replace(self, gradient=gradient)

    def as_judge(self) -> "Expected":
        return self if self.judged is None else dataclasses.replace(self, batch=self.judged)


def over_tasks(one: Callable[[PRNGKeyArray], PyTree], keys: Key[Array, " tasks"], chunk: int | None = None) -> PyTree:
    """`one` of every key, stacked; `chunk` keys at a time."""
    if len(keys) == 1:
        return jax.tree.map(lambda x: x[None], one(keys[0]))
    if chunk is None or chunk >= len(keys):
        return jax.vmap(one)(keys)
    if chunk == 1:
        return jax.lax.map(one, keys)
    return jax.lax.map(one, keys, batch_size=chunk)


def lift(
    learner: Learner,
    rule: Rule,
    *,
    batch: int = 1,
    steps: int = 1,
    gradient: Gradient | None = None,
    learn: Selector | None = None,
    chunk: int | None = None,
    judged: int | None = None,
) -> Descend:
    """The learner one storey up: it learns `learner`'s leaves from a distribution of tasks.

    `lift(x, ...)` is used exactly as `x` is, so it can be lifted again, to any height.

    Args:
        learner: what to improve; any `Learner`.
        rule: how its leaves move.
        batch: tasks per step.
        steps: steps per adaptation, which is the length of one whole run as the storey above sees it.
        gradient: how the gradient crosses the run of `learner`; exact (`Unrolled`) if None.
        learn: selects what moves, as a function of the *learner*: `learn=lambda learner: learner.rule.rate`.
        chunk: tasks worked on at the same time, see `Expected`.
        judged: tasks to judge a finished run on, see `Expected`.
    """
    selector = None if learn is None else lambda objective: learn(objective.learner)
    return Descend(
        Expected(learner, batch, chunk, judged), rule, steps, Unrolled() if gradient is None else gradient, selector
    )
