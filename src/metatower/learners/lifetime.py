"""Memories on three clocks: of every number, of a task, and of a lifetime of tasks."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.core import (
    Constant,
    Data,
    Learner,
    Metrics,
    Objective,
    Scored,
    Selector,
    State,
    Task,
    Tasks,
    pick,
    put,
    run,
    value,
)
from metatower.core.keys import fork
from metatower.core.leaves import strong
from metatower.rules import Coordinatewise

EPS = 1e-8
LIMIT = 2.0
"""By how much, in logarithms, the memories may change the length of a step."""


class Adapting(eqx.Module):
    """The state of a `RecurrentAdaptation`."""

    leaves: list[Array]
    rule: State
    """The first clock: the rule's memory, of every number."""
    task: Float[Array, " task_unit"]
    """The second clock: what happened on this task."""
    life: Float[Array, " life_unit"]
    """What the lifetime memory says; it stays as it is on a task."""


class RecurrentAdaptation(Learner):
    """Learns a task by a learned rule, under the eyes of a memory of the task and of a memory of earlier tasks.

    In the light of the lifetime memory m (nought unless `remembering`) and with s = 0 at the start of a task:

        θ_0 = θ + (m A) P                                          where a task starts from
        s ← GRU([loss, log rms g of every leaf, m B], s)           every step
        (f, η, c) of every leaf = [m, s] H
        θ ← 2σ(f) · θ − exp(η) · (the rule's move, with c added to what its network sees)

    The last two lines are of the leaves that `learn` selects; the others stay where the task started.

    Fresh, A and H are nought: then it does what `rule` does. Its lift learns θ and all weights of its networks, but not
    what concerns m; that takes a `Lifetime`. Make one with `recurrent_adaptation`.
    """

    objective: Any
    rule: Coordinatewise
    gru: eqx.nn.GRUCell
    listen: Float[Array, "life_unit eight"]
    """B."""
    head: Float[Array, "both_units says"]
    """H."""
    shift: Float[Array, "life_unit rank"]
    """A."""
    basis: list[Float[Array, "rank ..."]]
    """P, for each leaf."""
    life: Constant
    """m at the start of a task: nought, or what a lifetime has ended with (`Lifetime.result`)."""
    steps: int = eqx.field(static=True)
    learn: Selector | None = eqx.field(static=True, default=None)
    """Which leaves of the objective move on a task; all if None."""

    def start(self, *, key: PRNGKeyArray) -> Adapting:
        del key
        life = value(self.life)
        by = life @ self.shift
        pairs = zip(pick(self.objective), self.basis, strict=True)
        leaves = [strong(leaf) + jnp.tensordot(by, basis, 1) for leaf, basis in pairs]
        moving = pick(put(self.objective, leaves), self.learn)
        return Adapting(leaves, self.rule.start(moving), jnp.zeros(self.gru.hidden_size, by.dtype), life)

    def remembering(self, life: Float[Array, " life_unit"]) -> "RecurrentAdaptation":
        """This learner in the light of a lifetime memory."""
        return eqx.tree_at(lambda learner: learner.life, self, Constant(life))

    def update(self, state: Adapting, data: Data, *, key: PRNGKeyArray) -> tuple[Adapting, Metrics]:
        begun = put(self.objective, state.leaves)
        loss, gradient = _slope(begun, data, key, self.learn)
        seen = jnp.concatenate([squash(loss)[None], sizes(gradient), state.life @ self.listen])
        task = self.gru(seen, state.task)
        said = jnp.concatenate([state.life, task]) @ self.head
        keep, factor, context = jnp.split(said.reshape(len(gradient), -1), (1, 2), axis=1)
        factor = LIMIT * jnp.tanh(factor[:, 0] / LIMIT)
        moving = pick(begun, self.learn)
        rule, moved = self.rule.conditioned(state.rule, moving, gradient, context, factor)
        gates = 2 * jax.nn.sigmoid(keep[:, 0])
        moved = [new + (gate - 1) * old for new, old, gate in zip(moved, moving, gates, strict=True)]
        return Adapting(pick(put(begun, moved, self.learn)), rule, task, state.life), {"loss": loss}

    def slope(self, state: Adapting, data: Data, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], list[Array]]:
        """The loss on data, and its gradient by all leaves."""
        return _slope(put(self.objective, state.leaves), data, key)

    def step(self, state: Adapting, data: Data, *, key: PRNGKeyArray) -> Adapting:
        return self.update(state, data, key=key)[0]

    def loss(self, state: Adapting, data: Data, *, key: PRNGKeyArray) -> Scored:
        return self.judge(state).loss(data, key=key)

    def judge(self, state: Adapting) -> Objective:
        return put(self.objective, state.leaves)

    def result(self, state: Adapting) -> Any:
        """The objective with the leaves that `state` has reached."""
        return put(self.objective, state.leaves)

    @property
    def height(self) -> int:
        return self.objective.height


class Lifetime(Learner):
    """Meets the tasks of a distribution one after the other, and remembers.

    A learner of storey 1 that takes no gradient step: what MAML does to its initial weights, a recurrent memory m does.
    One step samples the next task, adapts to its support in the light of m, is judged on its query, and then

        m ← GRU([log losses before and after, P ∇θ of the query's loss, P (θ_T − θ_0), log rms of that gradient,
                 encoded support and query], m)

    all through the directions P in which m moves the initial weights. m is never reset within a distribution, and the
    query loss of the j-th task (`update` reports it) falls as j grows. The lift of this learner is storey 2: it trains
    all networks and the initial weights on whole lifetimes, `lift(lifetime, adam(1e-3), gradient=Lifelong(weights))`.

    The three clocks are those of DiscoRL (Oh et al. 2025) and one below; the lifetime's is that of RL² (Duan et al.
    2016, https://arxiv.org/abs/1611.02779), whose hidden state survives from task to task. Make one with `lifetime`.

    Args:
        steps: in one lifetime.
        judged: tasks that a finished lifetime is judged on.
        forgets: start every task without memory: the ablation that shows what memory is worth.
        tasks: met in one step, one after the other. Several, so that a step can be set beside a meta-step of MAML,
            which meets a batch of them; `update` then reports the mean losses.
    """

    learner: RecurrentAdaptation
    gru: eqx.nn.GRUCell
    encode: Any
    steps: int = eqx.field(static=True)
    judged: int = eqx.field(static=True, default=1)
    forgets: bool = eqx.field(static=True, default=False)
    tasks: int = eqx.field(static=True, default=1)

    def start(self, *, key: PRNGKeyArray) -> Float[Array, " life_unit"]:
        del key
        return jnp.zeros(self.gru.hidden_size, self.gru.weight_hh.dtype)

    def update(self, state: State, data: Tasks, *, key: PRNGKeyArray) -> tuple[State, Metrics]:
        if self.tasks == 1:
            return self._meet(state, data, key)
        state, metrics = jax.lax.scan(lambda state, key: self._meet(state, data, key), state, fork(key, self.tasks))
        return state, jax.tree.map(jnp.mean, metrics)

    def _meet(self, state: State, data: Tasks, key: PRNGKeyArray) -> tuple[State, Metrics]:
        """One more task."""
        key_task, key_run, key_query = fork(key, 3)
        task = data.sample(key_task)
        began, ended = self._adapted(state, task, key_run)
        before = self.learner.loss(began, task.query, key=key_query)[0]
        after, gradient = self.learner.slope(ended, task.query, key=key_query)
        walked = [new - old for new, old in zip(ended.leaves, began.leaves, strict=True)]
        coded = [] if self.encode is None else [self.encode(task.support), self.encode(task.query)]
        scores = jnp.stack([squash(before), squash(after)])
        seen = [scores, sizes(gradient), self._along(gradient), self._along(walked), *coded]
        memory = state if self.forgets else self.gru(jnp.concatenate(seen), state)
        return memory, {"loss": after, "loss before": before}

    def step(self, state: State, data: Tasks, *, key: PRNGKeyArray) -> State:
        return self.update(state, data, key=key)[0]

    def loss(self, state: State, data: Tasks, *, key: PRNGKeyArray) -> Scored:
        def one(key):
            key_task, key_run, key_query = fork(key, 3)
            task = data.sample(key_task)
            return self.learner.loss(self._adapted(state, task, key_run)[1], task.query, key=key_query)

        return jax.tree.map(jnp.mean, jax.vmap(one)(fork(key, self.judged)))

    def result(self, state: State) -> RecurrentAdaptation:
        """The learner of tasks that a lifetime has ended with."""
        return self.learner.remembering(state)

    def _adapted(self, memory: Array, task: Task, key: PRNGKeyArray) -> tuple[Adapting, Adapting]:
        learner = self.result(memory)
        return learner.start(key=key), run(learner, task.support, key=key)

    def _along(self, direction: list[Array]) -> Float[Array, " rank"]:
        """How far a direction points along those of P: cosines, whatever its length."""
        flat = jnp.concatenate([jnp.ravel(each) for each in direction])
        basis = jnp.concatenate([each.reshape(len(each), -1) for each in self.learner.basis], axis=1)
        lengths = jnp.sqrt(jnp.sum(basis**2, axis=1) * jnp.sum(flat**2) + EPS)
        return 10 * basis @ flat / lengths

    @property
    def height(self) -> int:
        return self.learner.height + 1


def recurrent_adaptation(
    objective: Objective,
    rule: Coordinatewise,
    steps: int,
    *,
    key: PRNGKeyArray,
    life: int = 64,
    units: int = 32,
    rank: int = 32,
    spread: float = 0.1,
    learn: Selector | None = None,
) -> RecurrentAdaptation:
    """A fresh `RecurrentAdaptation`, which does what `rule` does.

    Args:
        objective: what each task scores; its leaves are the initial weights.
        rule: as `learned_mlp` or `learned_lstm` give it.
        steps: on a task.
        life, units: of the memories of a lifetime and of a task.
        rank: directions in which the lifetime memory can move the initial weights.
        spread: by how much it then moves each of them, about.
        learn: which leaves move on a task, all if None; the lifetime memory moves all in any case.
    """
    leaves, moving = pick(objective), len(pick(objective, learn))
    keys = fork(key, 3 + len(leaves))
    return RecurrentAdaptation(
        objective,
        rule,
        eqx.nn.GRUCell(1 + moving + 8, units, key=keys[0]),
        jax.random.normal(keys[1], (life, 8)) / life**0.5,
        jnp.zeros((life + units, moving * (2 + rule.width))),
        jnp.zeros((life, rank)),
        [
            spread / rank**0.5 * jax.random.normal(key, (rank, *leaf.shape))
            for key, leaf in zip(keys[3:], leaves, strict=True)
        ],
        Constant(jnp.zeros(life)),
        steps,
        learn,
    )


def lifetime(learner: RecurrentAdaptation, steps: int, *, key: PRNGKeyArray, encode: Any = None, **options) -> Lifetime:
    """A fresh `Lifetime` of so many tasks.

    Args:
        encode: makes a vector of a support or query set, as `nets.SetEncoder` does; its layers are trained, too.
        options: other fields of `Lifetime`.
    """
    leaves, (life, rank) = len(learner.basis), learner.shift.shape
    coded = 0 if encode is None else 2 * encode.layers[-1].bias.size
    return Lifetime(learner, eqx.nn.GRUCell(2 + leaves + 2 * rank + coded, life, key=key), encode, steps, **options)


def _slope(objective: Objective, data: Data, key: PRNGKeyArray, learn: Selector | None = None):
    """The loss on data, and its gradient by the selected leaves."""
    at = jax.value_and_grad(lambda leaves: put(objective, leaves, learn).loss(data, key=key)[0])
    return at(pick(objective, learn))


def squash(loss: Array) -> Array:
    """About the logarithm of numbers from 0.01 up, and finite everywhere."""
    return jnp.arcsinh(50 * loss) / 2 - 1


def sizes(gradient: list[Array]) -> Float[Array, " leaf"]:
    """The logarithm of each leaf's root mean square, scaled."""
    return jnp.stack([jnp.log(jnp.mean(g**2) + EPS) / 8 for g in gradient])
