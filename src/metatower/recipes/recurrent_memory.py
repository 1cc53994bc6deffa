"""Recurrent memory: a network whose state learns a distribution of tasks, without any gradient step on it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Descend, Expected, Learner, Positive, State, Tasks, lift, value
from metatower.core.keys import fork
from metatower.evaluation.comparison import shuffled
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.episodes import judged_on, scores_after
from metatower.evaluation.statistics import interval, paired
from metatower.gradients import Lifelong, rising_weights
from metatower.learners.lifetime import Lifetime, lifetime, recurrent_adaptation
from metatower.nets import SetEncoder
from metatower.recipes.maml_baselines import CHUNK, MAMLBaselines
from metatower.recipes.on_functions import OnFunctions
from metatower.rules import PerLeaf, adam, anneal, clip, learned_mlp, rates_for
from metatower.tasks.pooled import Mismatched
from metatower.training.progress import Progress

OURS = "recurrent memory"
FROZEN = "storey 2 frozen at its start"
SHUFFLED = "storey 2 shuffled"
TOP_CLIP = 1.0
"""Global norm that storey 2's gradients are scaled down to."""
SHOWN = (1, 2, 5, 10, 20, 32)
"""Which tasks of a lifetime the table shows the loss on."""
CURVE = (1, 2, 3, 5, 7, 10, 14, 20, 26, 32)
DECIDES = 20
"""The task of a lifetime that contestants are compared on."""


@dataclass(frozen=True)
class RecurrentMemory(OnFunctions, MAMLBaselines):
    """A recurrent memory learns a distribution of functions as it meets its tasks, without a gradient step on it.

    A distribution is a kind of function with an amplitude, a frequency, an offset, a shift and a noise of its own; its
    tasks differ in phase. The network is adapted to one task after the other by a learned update rule; a memory that is
    never reset within a distribution moves its initial weights and steers the rule. Storey 2 trains memory, rule and
    initial weights on whole lifetimes of tasks. Judged by the loss on the j-th task of a lifetime, on fresh
    distributions and on kinds of function that no training run has seen (sawtooth and bumps), beside the same learner
    with its memory taken away or taken from another distribution, and beside MAML.
    """

    name: ClassVar[str] = "recurrent-memory"

    steps: int = 1000
    distributions: int = 4
    """Distributions per storey-2 step; on each, one lifetime."""
    tasks: int = 12
    """Tasks in one lifetime, in training."""
    later_tasks: float = 3.0
    """How many times the first task of a lifetime its end counts in the training loss."""
    memory: int = 64
    """Units of the lifetime memory."""
    task_memory: int = 32
    """Units of the memory of one task."""
    rank: int = 32
    """Directions in which the lifetime memory can move the initial weights."""
    rule_units: int = 8
    """Hidden units of the learned update rule, for every parameter."""
    network_rate: float = 3e-3
    """Storey 2's Adam step size for all networks."""
    weight_rate: float = 5e-4
    """Storey 2's Adam step size for the initial weights."""
    forgets: bool = False
    """Train, too, without memory."""
    inner_steps: int = 5
    inner_rate: float = 0.02
    outer_rate: float = 0.02
    outer_clip: float = 10.0
    outer_decay: float = 0.0
    judged: int = 4
    pooled_steps: int = 20_000
    pooled_extra: int = 60_000
    searched: int = 160
    final_judged: int = 32

    def learner(self) -> Descend:
        keys = fork(jax.random.key(self.seed), 4)
        objective = self.objective(self.seed)
        rule = learned_mlp(
            rates_for(objective, self.inner_rate, learn=self.adapted),
            key=keys[0],
            power=jnp.array(1.0),
            decay=jnp.array(0.0),
            units=self.rule_units,
            averages=(0.9,),
            second=0.9,
            like="gradient",
        )
        learner = recurrent_adaptation(
            objective,
            rule,
            self.inner_steps,
            key=keys[1],
            life=self.memory,
            units=self.task_memory,
            rank=self.rank,
            learn=self.adapted,
        )
        life = lifetime(
            learner,
            self.tasks,
            key=keys[2],
            encode=SetEncoder(*self.numbers(), (64, 64), key=keys[3]),
            judged=self.judged,
            forgets=self.forgets,
        )
        weights = (lambda objective: objective.learner.learner.objective, self.weight_rate)
        rates = rates_for(Expected(life), self.network_rate, overrides=(weights,), learned=False)
        top = anneal(clip(adam(rates), TOP_CLIP), end=max(1, self.steps))
        gradient = Lifelong(rising_weights(self.tasks, self.later_tasks))
        return lift(life, top, batch=self.distributions, gradient=gradient)

    def begin(self, learner: Descend, folder: Path, show: Progress) -> Descend:
        """The tower with the weights of pooled MAML, and for every leaf the mean of its log-rates."""
        maml = self._start(folder, show)
        rates = value(maml.rule.rule.rule.rate.numbers)
        start = maml.objective, PerLeaf(Positive(jnp.exp(jnp.mean(jnp.log(rates), axis=0))))
        return eqx.tree_at(
            lambda tower: (tower.objective.learner.learner.objective, tower.objective.learner.learner.rule.rate),
            learner,
            start,
        )

    def artefact(self, learner: Descend, state: State) -> Lifetime:
        return learner.result(state).learner

    def contestants(self, artefact: Any, folder: Path, show: Progress) -> dict[str, Learner]:
        """Ours and its ablations on MAML's clock, so that the same code judges both: one step meets `meta_batch` tasks.

        A meta-step of MAML evaluates the base learner's gradient `inner_steps` times on each of `meta_batch` tasks, and
        once more on its queries; the memory does just that, task by task. So a run of K such steps has met as many
        tasks and evaluated as many gradients as one of MAML's, and a run of 10 K steps ten times as many.
        """
        start: Lifetime = self.begin(self.learner(), folder, show).objective.learner
        runs: dict[str, Lifetime] = {
            OURS: artefact,
            FROZEN: start,
            SHUFFLED: shuffled(start, artefact, jax.random.key(self.seed)),
            "memory reset before every task": dataclasses.replace(artefact, forgets=True),
        }
        return {
            name: dataclasses.replace(each, tasks=self.meta_batch, steps=self.meta_steps) for name, each in runs.items()
        }

    def evaluations(self) -> int:
        """Base-learner gradients that one storey-2 step evaluates: on supports, and once on the queries met."""
        met = self.tasks * (self.inner_steps + 1)
        return self.distributions * (met + self.judged * self.inner_steps)

    def conclude(self, artefact: Any, folder: Path, show: Progress) -> Conclusion:
        start = self.begin(self.learner(), folder, show).objective.learner
        without = {FROZEN: start, SHUFFLED: shuffled(start, artefact, jax.random.key(self.seed))}
        others = self.baselines(folder, show)
        pooled = self._pooled(self.pooled_steps + self.pooled_extra, folder, show)
        # as many tasks as the memory meets: one for each meta-step
        one_each = dataclasses.replace(self, meta_batch=1, meta_steps=DECIDES - 1)
        task_by_task, single = one_each._tuned_pooled(pooled, show)
        many, searched = self._chosen(folder, show)
        conclusion = Conclusion(notes=self._notes(many, single, searched))
        for label, family in self.judged_on().items():
            series = {
                OURS: self._along(artefact, family, show, OURS),
                "memory reset before every task": self._along(
                    dataclasses.replace(artefact, forgets=True), family, show, "memory reset"
                ),
                "memory of another distribution": self._along(artefact, Mismatched(family), show, "memory shuffled"),
                "pooled MAML, one meta-step per task": self._along(task_by_task, family, show, "pooled MAML"),
            }
            for name, losses in series.items():
                for task in SHOWN:
                    row = {"loss": losses[:, CURVE.index(task)]}
                    conclusion.add(f"{name}, task {task}{label}", row, "distribution")
            for name, learner in others.items():
                scores = self._judge(learner, family, self.episodes, self.seed, show, f"judging: {name}{label}")
                conclusion.add(name + label, scores, "distribution")
            for name, learner in without.items():
                scores = self._along(learner, family, show, name)[:, CURVE.index(DECIDES)]
                conclusion.add(name + label, {"loss": scores}, "distribution")
            ours = f"{OURS}, task {DECIDES}{label}"
            conclusion.compare(
                ours,
                f"{OURS}, task 1{label}",
                *(f"{name}, task {DECIDES}{label}" for name in series if name != OURS),
                *(name + label for name in others),
                *(name + label for name in without),
            )
            conclusion.notes += _in_percent(series, label)
            conclusion.figures[f"tasks{len(conclusion.figures)}"] = Curves(
                f"Loss on the j-th task of a lifetime{label}: means over {self.episodes} distributions, with 95 % "
                f"intervals. Trained on lifetimes of {self.tasks} tasks; what lies beyond is extrapolation.",
                "task of a lifetime",
                "mean squared error",
                {name: interval(losses) for name, losses in series.items()},
                x=np.asarray(CURVE),
                log=True,
            )
        return conclusion

    def _along(self, learner: Learner, family: Tasks, show: Progress, title: str) -> np.ndarray:
        """The loss on tasks of `CURVE`, `[distribution, task]`: with what was learned from all tasks before."""
        whole: Any = learner
        if isinstance(whole, Descend):
            whole = judged_on(whole, self.final_judged)
        else:
            whole = dataclasses.replace(whole, judged=self.final_judged)
        found = scores_after(
            whole,
            family,
            [task - 1 for task in CURVE],
            episodes=self.episodes,
            seed=self.seed,
            chunk=CHUNK,
            show=show,
            title=f"lifetimes: {title}",
        )
        return found["loss"]

    def _notes(self, many: tuple[float, float], single: tuple[float, float], found: tuple[float, float]) -> list[str]:
        """What exactly was run, and what each contestant had of compute."""
        ours_step, pooled_step, _ = self._costs
        ours = self.steps * ours_step + self.pooled_steps * pooled_step
        theirs = (self.pooled_steps + self.pooled_extra) * pooled_step
        return [
            f"{self.steps:,} storey-2 steps of {self.distributions} lifetimes of {self.tasks} tasks each, with "
            f"{self.inner_steps} inner steps on {self.shots} examples. Storey 2 starts from {self.pooled_steps:,} "
            f"steps of pooled MAML. Seed {self.seed}.",
            f"Judged on {self.episodes} distributions, the same for all, each by {self.final_judged} tasks of another "
            "pool than the tasks that were learned from: the loss on task j is that with what was learned from j - 1 "
            "tasks. Intervals are over distributions, of one training run with one seed.",
            f"Pooled MAML had {theirs / ours:.2f} times the floating-point operations of storey 2 and its start "
            f"together. Its outer rate and momentum were chosen on {self.tuned_on} validation distributions: "
            f"{many[0]:g} and {many[1]:g} for K = {self.meta_steps} meta-steps of {self.meta_batch} tasks (K sees "
            f"{self.meta_steps * self.meta_batch} tasks of the distribution), {single[0]:g} and {single[1]:g} for one "
            "meta-step per task.",
            f"Random search tried {self.searched} pairs of an inner and an outer rate, each on {self.searched_on} "
            f"validation distributions, and chose {found[0]:.3g} and {found[1]:.3g}. Default MAML: inner rate 0.01, "
            "Adam at 0.001. Both start from fresh weights.",
            "No setting of any contestant was chosen on the distributions that it is judged on.",
        ]


def _in_percent(series: dict[str, np.ndarray], label: str) -> list[str]:
    """What the ablations cost, as a ratio of losses, with intervals over distributions."""
    at = CURVE.index(DECIDES)
    found = []
    for name, losses in series.items():
        if name != OURS:
            each = paired(np.log(losses[:, at]), np.log(series[OURS][:, at]))
            low, mean, high = (100 * (np.exp(x) - 1) for x in (each.lo, each.mean, each.hi))
            share = 100 * (losses[:, at].mean() / series[OURS][:, at].mean() - 1)
            found.append(
                f"Task {DECIDES}{label}: {name} costs {share:+.1f} % of the mean loss; as a geometric mean over "
                f"distributions {mean:+.1f} % [{low:+.1f}, {high:+.1f}]."
            )
    return found
