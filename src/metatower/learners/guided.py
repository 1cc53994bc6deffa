"""Meta-training that a policy guides: hierarchical reinforcement learning one storey up."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.core import Descend, Learner, Metrics, Rule, Scored, State, Task, Tasks, pick, put, run
from metatower.core.keys import fork
from metatower.learners.steered import Steered
from metatower.nets.controller import EXPLORE, PER_BIN, POLISH, ROUTINES, Option, Seen
from metatower.nets.policy import Categorical
from metatower.tasks.binned import Binned, sample_from

CHANGE = 0.5
"""By how much a log rate changes at most in one meta-step."""
LIMIT = 4.0
"""How far the log rates may move from their defaults."""
POLISHING = 0.3
"""The factor of the outer rate while polishing."""
WORST, BEST = 5.0, -30.0
"""Bounds of the reward's log-ratio: a run that diverged, to whatever extent, counts as e⁵ times worse than at first."""
EPS = 1e-12
SHORT, LONG = 0.5, 0.2
"""How fast the averages forget."""


class Guiding(eqx.Module):
    """The state of a guided run."""

    leaves: list[Array]
    """The initial weights of the learner of tasks, as meta-trained so far."""
    rule: State
    direction: list[Array]
    """The last meta-gradient."""
    logs: Float[Array, "3"]
    """The logarithms of the factors of inner and outer rate, and of the proximal weight."""
    memory: Any
    option: Option
    seen: Seen
    table: Float[Array, "bin 5"]
    """Of each bin: tasks seen, averages of gain, log loss and slope, and the last meta-step that saw it."""
    averages: Float[Array, "4"]
    """Of the log loss after adaptation, quickly and slowly forgetting; of the gain; of the slope."""
    began: Float[Array, "2"]
    """Log losses of the first meta-step, on queries after adaptation and on supports before."""
    spent: Float[Array, ""]
    """Evaluations of the base learner's gradient so far."""
    log_probability: Float[Array, ""]
    """Of all that the policy has drawn."""
    count: Int[Array, ""]


class Guided(Learner):
    """A run of meta-training on one distribution, in which a policy chooses tasks, inner steps and rates.

    A semi-Markov decision process whose environment is the run itself. A *step* is one meta-step. Every `every` of them
    the manager picks an option: a routine, the number of inner steps, and a distribution over the bins of the tasks
    (`tasks.binned`), which they are drawn from, or weighted by while all are explored in turn; the worker changes
    the logarithms of inner rate, outer rate and proximal weight, each by at most ½. The meta-gradient is exact. Both
    see losses and gradients of the training tasks alone (`nets.controller.Seen`).

    The policy's weights are leaves, and lifting this learner trains them on what finished runs are worth: without a
    derivative through the run by `gradients.Evolution`; by `gradients.ScoreFunction` if the controller `explores`, and
    if its worker is `smooth`, the derivative through the run is that of rates and weights. With `rewarded`, the loss
    is minus the return: the sum over meta-steps of

        r_k = log L(φ_k) − log L(φ_{k+1}) − cost · (gradient evaluations of step k),

    on the same tasks of the query pool for all k. It telescopes to what the whole run improved, so γ = 1, and no greedy
    proxy can be exploited. Without `rewarded` the loss is the query loss, as of every learner.

    Differs from learning-to-schedule papers (Yao et al. 2021, "Meta-learning with an adaptive task scheduler",
    arXiv:2110.14057) in that the policy is trained once, on many distributions, and held fixed on a new one.

    Args:
        learner: of tasks, a `Descend` of storey 0; its inner rates are the defaults.
        rule: how the weights move along the meta-gradient; its rates are the defaults.
        controller: the policy. `at_rest` it leaves everything at its default.
        logs: where the logarithms of the factors of both rates and of the proximal weight start: the default.
        steps: meta-steps of one run, K.
        horizon: meta-steps that the policy counts on; `steps` may be more or less.
        batch: tasks per meta-step.
        bins: among which the manager chooses; a distribution without bins is taken as if all were alike.
        every: meta-steps per option.
        choices: the numbers of inner steps to choose from.
        judged: tasks that a finished run is judged on, each with the learner's own number of steps.
        rewarded: whether the loss is minus the return.
        cost: per gradient evaluation, in units of log loss.
    """

    learner: Any
    rule: Rule
    controller: Any  # a Controller, of more parts than its interface
    logs: Float[Array, "3"]
    steps: int = eqx.field(static=True, default=10)
    horizon: int = eqx.field(static=True, default=10)
    batch: int = eqx.field(static=True, default=8)
    bins: int = eqx.field(static=True, default=8)
    every: int = eqx.field(static=True, default=2)
    choices: tuple[int, ...] = eqx.field(static=True, default=(1, 3, 5))
    judged: int = eqx.field(static=True, default=16)
    rewarded: bool = eqx.field(static=True, default=False)
    cost: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        if not isinstance(self.learner, Descend) or self.learner.height:
            raise TypeError(f"Guided: expected a Descend of storey 0 as learner, got {type(self.learner).__name__}.")
        for name in ("horizon", "batch", "bins", "every", "judged"):
            if getattr(self, name) < 1:
                raise ValueError(f"Guided: expected {name} of at least 1, got {getattr(self, name)}.")

    def start(self, *, key: PRNGKeyArray) -> Guiding:
        del key
        leaves = pick(self.learner.objective)
        zeros = [jnp.zeros_like(leaf) for leaf in leaves]
        none = jnp.zeros((), self.logs.dtype)

        def nought(*shape):
            return jnp.zeros(shape, self.logs.dtype)

        first = jnp.zeros((), jnp.int32)
        seen = Seen(
            nought(self.numbers), nought(self.bins, PER_BIN), jnp.zeros(self.batch, jnp.int32), nought(self.batch)
        )
        option = Option(nought(self.bins), first, first)
        return Guiding(
            leaves, self.rule.start(leaves), zeros, self.logs, self.controller.start(), option, seen,
            nought(self.bins, 5), nought(4), nought(2), none, none, first,
        )  # fmt: skip

    def update(self, state: Guiding, data: Tasks, *, key: PRNGKeyArray) -> tuple[Guiding, Metrics]:
        if isinstance(data, Binned) and data.bins != self.bins:
            raise ValueError(
                f"Guided: expected tasks of {self.bins} bins, got {data.bins}. Make it with bins={data.bins}."
            )
        keys = fork(key, 4)
        memory, option, drawn = self._managed(state, keys[0])
        changes, drawn_rates = self.controller.work(memory, state.seen, option, key=keys[1])
        moved = state.logs + jnp.clip(changes, -CHANGE, CHANGE)
        logs = self.logs + jnp.clip(moved - self.logs, -LIMIT, LIMIT)
        bins, trust, drawn_bins = self._bins(option, keys[2])
        gradient, record = self._meta_gradient(state.leaves, logs, self._inner(option), data, bins, trust, keys[3])
        rule, leaves = self.rule.step(state.rule, state.leaves, gradient)
        factor = jnp.exp(logs[1]) * jnp.where(option.routine == POLISH, POLISHING, 1.0)
        leaves = [old + factor * (new - old) for old, new in zip(state.leaves, leaves, strict=True)]
        spent = state.spent + self.batch * (self._inner(option) + 1)
        table, averages, began, seen = self._observed(state, leaves, gradient, logs, option, bins, record)
        probability = state.log_probability + drawn + drawn_rates + drawn_bins
        after = Guiding(
            leaves, rule, gradient, logs, memory, option, seen, table, averages, began, spent, probability,
            state.count + 1,
        )  # fmt: skip
        return after, {"loss": jnp.mean(record["after"])}

    def step(self, state: Guiding, data: Tasks, *, key: PRNGKeyArray) -> Guiding:
        return self.update(state, data, key=key)[0]

    def loss(self, state: Guiding, data: Tasks, *, key: PRNGKeyArray) -> Scored:
        after, metrics = self._judged(state.leaves, state.logs, data, key)
        metrics = {**metrics, "gradient evaluations": state.spent}
        if not self.rewarded:
            return after, metrics
        before, _ = self._judged(pick(self.learner.objective), self.logs, data, key)
        return -self._reward(before, after, state.spent), metrics

    def reward(self, before: Guiding, after: Guiding, probe: Tasks, *, key: PRNGKeyArray) -> Float[Array, ""]:
        """What was gained between two states of a run; the same key judges both, and all others of the run.

        Inside its bounds it adds up: from start to end it is minus the `rewarded` loss.
        """
        one, other = (self._judged(state.leaves, state.logs, probe, key)[0] for state in (before, after))
        return self._reward(one, other, after.spent - before.spent)

    def result(self, state: Guiding) -> Steered:
        """The learner of tasks that a run has ended with."""
        return self._steered(state.leaves, state.logs, jnp.asarray(self.learner.steps, jnp.int32), self.learner.steps)

    def log_probability(self, state: Guiding) -> Float[Array, ""]:
        return state.log_probability

    @property
    def height(self) -> int:
        return self.learner.height + 1

    @property
    def numbers(self) -> int:
        """How many numbers of the run as a whole the policy sees."""
        return 20 + len(self.choices) + len(ROUTINES)

    def _reward(self, before: Array, after: Array, spent: Array) -> Float[Array, ""]:
        ratio = jnp.log(jnp.maximum(after, EPS)) - jnp.log(jnp.maximum(before, EPS))
        return -jnp.clip(ratio, BEST, WORST) - self.cost * spent  # a NaN stays one

    def _judged(self, leaves: list[Array], logs: Array, data: Tasks, key: PRNGKeyArray) -> Scored:
        steered = self._steered(leaves, logs, jnp.asarray(self.learner.steps, jnp.int32), self.learner.steps)

        def one(key):
            key_task, key_run, key_query = fork(key, 3)
            task = data.sample(key_task)
            return steered.loss(run(steered, task.support, key=key_run), task.query, key=key_query)

        return jax.tree.map(jnp.mean, jax.vmap(one)(fork(key, self.judged)))

    def _steered(self, leaves: list[Array], logs: Array, counted: Array, steps: int) -> Steered:
        own = self.learner
        objective = put(own.objective, leaves)
        return Steered(objective, own.rule, logs[jnp.array([0, 2])], counted, own.gradient, own.learn, steps)

    def _inner(self, option: Option) -> Int[Array, ""]:
        return jnp.asarray(self.choices)[option.inner]

    def _managed(self, state: Guiding, key: PRNGKeyArray) -> tuple[Any, Option, Float[Array, ""]]:
        memory, option, drawn = self.controller.manage(state.memory, state.seen, key=key)
        now = state.count % self.every == 0
        memory, option, drawn = jax.tree.map(
            lambda new, old: jnp.where(now, new, old),
            (memory, option, drawn),
            (state.memory, state.option, jnp.zeros_like(drawn)),
        )
        return memory, option, drawn

    def _bins(self, option: Option, key: PRNGKeyArray) -> tuple[Int[Array, " t"], Float[Array, " t"], Array]:
        """The bin of each task and its weight: all in turn while exploring, weighted; else drawn, and all alike."""
        key_turn, key_draw = fork(key, 2)
        begin = jax.random.randint(key_turn, (), 0, self.bins)
        in_turn = (begin + jnp.arange(self.batch)) % self.bins
        preferred = Categorical(jnp.broadcast_to(option.logits, (self.batch, self.bins)))
        drawn = preferred.sample(key_draw)
        explores = option.routine == EXPLORE
        weights = self.batch * jax.nn.softmax(option.logits[in_turn])
        return (
            jnp.where(explores, in_turn, drawn).astype(jnp.int32),
            jnp.where(explores, weights, 1.0),
            jnp.where(explores, 0.0, jnp.sum(preferred.log_probability(drawn))),
        )

    def _meta_gradient(
        self, leaves, logs, inner, data: Tasks, bins, trust, key
    ) -> tuple[list[Array], dict[str, Array]]:
        """The exact gradient of the weighted mean of the query losses, and what each task showed on the way."""

        def one(leaves, nudge, which, key):
            keys = fork(key, 4)
            task: Task = sample_from(data, which, keys[0])
            steered = self._steered(leaves, logs, inner, max(self.choices))
            first, last = steered.start(key=keys[1]), run(steered, task.support, key=keys[1])
            walked = [new - old for new, old in zip(last[0].leaves, first[0].leaves, strict=True)]
            # what the loss says of a nudge at the end of adaptation is the query's gradient there, for nothing
            ended = [leaf + more for leaf, more in zip(last[0].leaves, nudge, strict=True)]
            after = steered.loss((dataclasses.replace(last[0], leaves=ended), last[1]), task.query, key=keys[2])[0]
            others = {
                "before": steered.loss(first, task.query, key=keys[2])[0],
                "support before": steered.loss(first, task.support, key=keys[3])[0],
                "support after": steered.loss(last, task.support, key=keys[3])[0],
            }
            return after, {**others, "after": after, "walked": walked}

        def mean(leaves, nudges, keys):
            after, record = jax.vmap(one, in_axes=(None, 0, 0, 0))(leaves, nudges, bins, keys)
            return jnp.mean(trust * after), record

        there = pick(self.learner.objective, self.learner.learn)
        nudges = [jnp.zeros((self.batch, *leaf.shape), leaf.dtype) for leaf in there]
        slope = jax.grad(mean, argnums=(0, 1), has_aux=True)
        (gradient, at_end), record = slope(leaves, nudges, fork(key, self.batch))
        walked = record.pop("walked")
        # the gradients at the end are those of weighted losses; what is seen of a task is not to depend on its weight
        at_end = [each / jnp.maximum(trust, EPS).reshape(-1, *[1] * (each.ndim - 1)) for each in at_end]
        record["downhill"] = -self.batch * _each_dot(walked, at_end)
        record["lengths"] = _length(_each_dot(walked, walked)) * self.batch * _length(_each_dot(at_end, at_end))
        return gradient, record

    def _observed(self, state: Guiding, leaves, gradient, logs, option: Option, bins, record):
        """What has been seen after this step: the table of bins, the averages, and the numbers made of them."""
        log = {name: jnp.log(jnp.maximum(record[name], EPS)) for name in ("before", "after")}
        supports = [jnp.log(jnp.maximum(jnp.mean(record[f"support {when}"]), EPS)) for when in ("before", "after")]
        gain, after = log["before"] - log["after"], jnp.log(jnp.maximum(jnp.mean(record["after"]), EPS))
        slope = _cosine(jnp.sum(record["downhill"]), jnp.sum(record["lengths"]))
        first = state.count == 0
        began = jnp.where(first, jnp.stack([after, supports[0]]), state.began)
        new = jnp.stack([after, after, jnp.mean(gain), slope])
        pace = jnp.maximum(jnp.array([SHORT, LONG, LONG, LONG]), 1 / (state.count + 1))
        averages = state.averages + pace * (new - state.averages)

        each = jnp.stack([gain, log["after"], _cosine(record["downhill"], record["lengths"])], axis=1)
        picked = jax.nn.one_hot(bins, self.bins, dtype=each.dtype)
        number = jnp.sum(picked, axis=0)
        here = picked.T @ each / jnp.maximum(number, 1)[:, None]
        weight = 0.8 * state.table[:, 0] + number
        share = (number / jnp.maximum(weight, EPS))[:, None]
        known = (1 - share) * state.table[:, 1:4] + share * here
        progress = jnp.where((number > 0) & (state.table[:, 0] > 0), state.table[:, 2] - here[:, 1], 0.0)
        last = jnp.where(number > 0, state.count + 1.0, state.table[:, 4])
        weight = jnp.where(number > 0, weight, state.table[:, 0])
        table = jnp.concatenate([weight[:, None], known, last[:, None]], axis=1)
        there = (weight > 0).astype(each.dtype)
        centre = jnp.sum(there[:, None] * known, axis=0) / jnp.maximum(jnp.sum(there), 1)
        away = there[:, None] * (known - centre)
        visits = weight / jnp.maximum(jnp.sum(weight), EPS)
        stale = (state.count + 1 - last) / self.horizon
        columns = [there, there * known[:, 0], away[:, 0], away[:, 1], there * known[:, 2]]
        by_bin = jnp.stack([*columns, visits * self.bins - 1, stale, progress], axis=1)

        moved = [new - old for new, old in zip(leaves, state.leaves, strict=True)]
        length, old_length = _length(_dot(gradient, gradient)), _length(_dot(state.direction, state.direction))
        numbers = [
            after - began[0], averages[0] - averages[1], averages[1] - began[0],
            -jnp.mean(gain), -averages[2], supports[1] - supports[0], supports[0] - began[1], after - supports[1],
            10 * slope, 10 * averages[3],
            jnp.log(length + EPS) / 4, jnp.log(_root(_dot(moved, moved)) / _root(_dot(leaves, leaves)) + EPS) / 4,
            _cosine(_dot(gradient, state.direction), length * old_length),
            jnp.sqrt(jnp.var(log["after"]) + EPS), jnp.mean((gain < 0).astype(each.dtype)),
            (state.count + 1) / self.horizon, (state.count % self.every + 1) / self.every,
            *(logs - self.logs),
            *(jnp.arange(len(self.choices)) == option.inner), *(jnp.arange(len(ROUTINES)) == option.routine),
        ]  # fmt: skip
        numbers = jnp.clip(jnp.stack([jnp.asarray(number, each.dtype) for number in numbers]), -3.0, 3.0)
        return table, averages, began, Seen(numbers, jnp.clip(by_bin, -3.0, 3.0), bins, gain)


def _dot(one: list[Array], other: list[Array]) -> Float[Array, ""]:
    return sum((jnp.sum(a * b) for a, b in zip(one, other, strict=True)), jnp.zeros(()))


def _each_dot(one: list[Array], other: list[Array]) -> Float[Array, " task"]:
    return sum((jnp.sum((a * b).reshape(len(a), -1), axis=1) for a, b in zip(one, other, strict=True)), jnp.zeros(()))


def _root(square: Array) -> Array:
    """Its derivative is finite at nought."""
    return jnp.sqrt(square + EPS**2)


def _length(square: Array) -> Array:
    """The root; nought, and so its derivative, where the square is."""
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def _cosine(product: Array, lengths: Array) -> Array:
    """Of two directions; nought, and so its derivative, where one has no length, as what an inner rate of 0 walks."""
    # else that derivative is a direction over EPS, which cancels in the run but for its rounding, and that is large
    return jnp.where(lengths > 0, product, 0.0) / (lengths + EPS)
