"""What normalisation gives away: one learner, the same episodes, every mode of its norms."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Constant, Learner, Metrics, State, Tasks
from metatower.core.errors import UserError
from metatower.core.keys import fork
from metatower.evaluation.episodes import episode_keys, evaluate
from metatower.evaluation.statistics import Interval, interval, paired
from metatower.nets.norm import Mode, Moments, norms, with_norm, with_running
from metatower.nets.supervised import Examples


def measured(learner: Learner, tasks: Tasks, *, episodes: int = 100, seed: int = 0) -> Any:
    """`learner` with norms in the mode "running", their statistics measured on the support sets of training tasks.

    The statistics are those of all these supports taken together: the mean of the variances plus the variance of the
    means. Measured once, at the trained weights, instead of following along while they move (Wu & Johnson 2021,
    "Rethinking 'Batch' in BatchNorm", section 3: precise statistics). Deep norms see what earlier ones make of one
    support set at a time: give tasks with many examples, where the learner takes them.

    Args:
        learner: a learner of tasks, whose state holds what its norms saw.
        tasks: of meta-training.
        episodes: how many.
        seed: chooses them.

    Raises:
        UserError: the learner has no norms.
    """
    count = len(norms(learner))
    if not count:
        raise UserError(f"This {type(learner).__name__} has no norms, so there is nothing to measure.")
    watching = with_norm(learner, "support")

    @eqx.filter_jit
    def seen(watching, tasks, key) -> list[Moments]:
        key_task, key_adapt = fork(key, 2)
        state = watching.adapt(tasks.sample(key_task).support, key=key_adapt)
        leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, Moments))
        return [leaf for leaf in leaves if isinstance(leaf, Moments)]

    every = [seen(watching, tasks, key) for key in episode_keys(seed, 0, episodes)]
    together = jax.tree.map(lambda *each: jnp.stack(each), *every)
    if len(together) != count:
        raise UserError(
            f"This learner has {count} norms, but its state holds the statistics of {len(together)}: "
            f"{type(learner).__name__} does not carry them."
        )
    return with_running(
        learner,
        [Moments(jnp.mean(m.mean, 0), jnp.mean(m.variance, 0) + jnp.var(m.mean, 0)) for m in together],
    )


class Alone(Learner):
    """The same learner, but every query is judged by itself, as if the others were not there."""

    learner: Learner
    steps: int = eqx.field(static=True, default=1)

    def start(self, *, key):
        return self.learner.start(key=key)

    def step(self, state: State, data, *, key):
        return self.learner.step(state, data, key=key)

    def loss(self, state: State, data: Examples, *, key) -> tuple[Any, Metrics]:
        weight = jnp.ones(len(data.y)) if data.weight is None else data.weight

        def one(x, y):
            return self.learner.loss(state, Examples(x[None], y[None], None, data.ways), key=key)

        scored = jax.vmap(one)(data.x, data.y)
        return jax.tree.map(lambda each: each @ weight / jnp.sum(weight), scored)


@dataclass(frozen=True)
class NormRow:
    """One mode."""

    mode: Mode
    accuracy: Interval
    """With all queries of the task together."""
    alone: Interval
    """With every query by itself."""
    gift: Interval
    """What the other queries give: paired difference of the two; not zero only where a prediction depends on them."""


@dataclass(frozen=True)
class NormTable:
    """`compare_norms`; `str` of it is a table."""

    rows: tuple[NormRow, ...]

    def __str__(self) -> str:
        lines = [f"{'norm':14}{'accuracy':>18}{'each query alone':>20}{'given by the others':>23}"]
        for row in self.rows:
            cells = (_percent(row.accuracy), _percent(row.alone), _percent(row.gift, "+"))
            lines.append(f"{row.mode:14}{cells[0]:>18}{cells[1]:>20}{cells[2]:>23}")
        return "\n".join(lines)


def in_every_mode(
    learner: Learner, *, training: Tasks | None = None, episodes: int = 100, seed: int = 0
) -> dict[Mode, Learner]:
    """The same learner with its norms in each mode, by mode; none if it has no norms.

    Args:
        training: tasks of meta-training, to measure "running" on; without them that mode is left out, unless the
            learner brings its statistics.
        episodes, seed: how many of them, and which.
    """
    if not norms(learner):
        return {}
    modes: dict[Mode, Learner] = {mode: with_norm(learner, mode) for mode in ("transductive", "support")}
    if all(isinstance(norm.running, Constant) for norm in norms(learner)):
        modes["running"] = with_norm(learner, "running")
    elif training is not None:
        modes["running"] = measured(modes["transductive"], training, episodes=episodes, seed=seed)
    return modes | {"none": with_norm(learner, "none")}


def compare_norms(
    learner: Learner, tasks: Tasks, *, training: Tasks | None = None, episodes: int = 100, seed: int = 0
) -> NormTable:
    """The accuracy of `learner` on the same episodes in each mode of its norms, and what each gives away.

    Args:
        learner: a learner of tasks.
        tasks: what it is judged on.
        training: tasks of meta-training, to measure "running" on; without them that mode is left out, unless the
            learner brings its statistics.
        episodes, seed: see `evaluate`.

    Raises:
        UserError: the learner has no norms.
    """
    if not norms(learner):
        raise UserError(f"This {type(learner).__name__} has no norms: there are no modes to compare.")
    rows = []
    for mode, each in in_every_mode(learner, training=training, seed=seed).items():
        together, alone = (
            np.asarray(evaluate(one, tasks, episodes=episodes, seed=seed)["accuracy"])
            for one in (each, Alone(each, each.steps))
        )
        rows.append(NormRow(mode, interval(together), interval(alone), paired(together, alone)))
    return NormTable(tuple(rows))


def _percent(value: Interval, sign: str = "") -> str:
    return f"{100 * value.mean:{sign}.1f} ± {50 * (value.hi - value.lo):.1f} %"
