"""The MAML-based meta-meta-learning loop: MAML itself is trained, on whole meta-training runs."""

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Descend, Expected, Learner, State, Tasks, lift, names, value
from metatower.core.errors import UserError
from metatower.core.keys import fork
from metatower.evaluation.comparison import shuffled
from metatower.evaluation.conclusion import Conclusion, Curves, Rates
from metatower.evaluation.episodes import adaptation_scores, sampled
from metatower.evaluation.statistics import interval
from metatower.gradients import Clipped, MultiStep, Relative, Unrolled
from metatower.nets import learned_loss
from metatower.recipes.maml_baselines import (
    POOLED_DECAYS,
    POOLED_RATES,
    START,
    MAMLBaselines,
)
from metatower.recipes.verdict import verdict
from metatower.rules import adam, anneal, clip, kronecker, rates_for, task_conditioned
from metatower.tasks.pooled import Pooled
from metatower.training.beside import beside
from metatower.training.loop import compile_ahead, train
from metatower.training.progress import Progress, Silent

Group = Literal[
    "weights", "inner-rates", "outer-rates", "momentum", "step-weights", "preconditioner", "alfa", "learned-loss"
]
GROUPS: tuple[str, ...] = get_args(Group)
TOP_CLIP = 1.0
"""Global norm that gradients are scaled down to on storey 2."""
OURS = "optimised MAML"
FROZEN = "storey 2 frozen at its start"
SHUFFLED = "storey 2's rates shuffled"


@dataclass(frozen=True)
class OptimisedMAML(MAMLBaselines):
    """What the recipes of the loop share; a subclass gives the network and the family of distributions."""

    may_be_zero: ClassVar[tuple[str, ...]] = ("outer_decay", "decay_rate", "run_clip")

    distributions: int = 4
    """Distributions per storey-2 step; on each, one fresh run of MAML."""
    weight_rate: float = 4e-4
    """Storey 2's Adam step size for the initial weights."""
    rate_rate: float = 1.5e-2
    """Storey 2's Adam step size for the logarithms of all rates."""
    decay_rate: float = 4e-2
    """Storey 2's Adam step size for the decays of the outer momentum."""
    learn: tuple[Group, ...] = ("weights", "inner-rates", "outer-rates", "momentum")
    """What storey 2 learns. Besides what MAML has: the weights of the query loss after each inner step, a Kronecker
    preconditioner, rates that a network chooses from what a task does (ALFA), a loss to adapt by (MeTAL)."""
    group_rate: float = 3e-3
    """Storey 2's Adam step size for the numbers of step-weights, preconditioner, alfa and learned-loss."""
    run_clip: float = 0.0
    """Norm that the gradient of each run is scaled down to before they are averaged; 0 for as it is."""
    relative: bool = False
    """Whether a run counts by the factor by which its loss falls, and not by the amount: for losses of unequal size."""

    def check(self) -> None:
        super().check()
        unknown = sorted(set(self.learn) - set(GROUPS))
        if unknown:
            raise UserError(f"{self.name}: expected --learn from {', '.join(GROUPS)}, got {unknown[0]!r}.")
        self.at_least_one("steps")
        if "momentum" in self.learn and self.decay_rate == 0:
            raise UserError(
                f"{self.name}: momentum is learned at --decay-rate, got 0. Raise it, or leave momentum out."
            )
        if "learned-loss" in self.learn and self.adapted is not None:
            raise UserError(f"{self.name}: learned-loss needs a network of which all layers move on a task.")

    @abstractmethod
    def sample_of(self, maml: Descend, tasks: Tasks) -> Any:
        """A figure of a task with what `maml` predicts for it."""

    def learner(self) -> Descend:
        trainer = self.optimised()
        learned = {
            "weights": (lambda objective: _net_of(_maml_of(objective)), self.weight_rate),
            "inner-rates": (lambda objective: _sgd_of(_maml_of(objective)).rate, self.rate_rate),
            "outer-rates": (lambda objective: objective.learner.rule.rule.rule.rate, self.rate_rate),
            "momentum": (lambda objective: objective.learner.rule.rule.rule.decay, self.decay_rate),
        }
        overrides = [(where, rate if name in self.learn else 0.0) for name, (where, rate) in learned.items()]
        rates = rates_for(Expected(trainer), self.group_rate, overrides=tuple(overrides), learned=False)
        rule = anneal(clip(adam(rates), TOP_CLIP), end=max(1, self.steps))
        gradient = Relative() if self.relative else None
        if self.run_clip:
            gradient = Clipped(self.run_clip, gradient or Unrolled())
        return lift(trainer, rule, batch=self.distributions, gradient=gradient)

    def optimised(self) -> Descend:
        """Storey 1 with everything that storey 2 learns; fresh, it does what `trainer` does."""
        maml, keys = self.maml(), fork(jax.random.key(self.seed), 2)
        if "learned-loss" in self.learn:
            loss = learned_loss(maml.objective, self.outputs(), key=keys[0])
            maml = dataclasses.replace(maml, objective=loss, learn=_net_of_loss)
        if "alfa" in self.learn:
            conditioned = task_conditioned(maml.objective, maml.rule, key=keys[1], learn=maml.learn)
            maml = dataclasses.replace(maml, rule=conditioned)
        if "preconditioner" in self.learn:
            maml = dataclasses.replace(maml, rule=kronecker(maml.objective, maml.rule, learn=maml.learn))
        trainer = self.trainer(maml)
        if "step-weights" in self.learn:
            last = jnp.zeros(self.inner_steps).at[-1].set(1.0)
            trainer = dataclasses.replace(trainer, gradient=MultiStep(last, learned=True))
        return trainer

    def artefact(self, learner: Descend, state: State) -> Descend:
        return learner.result(state).learner

    def begin(self, learner: Descend, folder: Path, show: Progress) -> Descend:
        """The tower with the weights and inner rates of pooled MAML, from which storey 2 sets out."""
        jobs = []  # a start that is read from its file leaves no time to do anything beside it
        if not (folder / "baselines" / START).exists():
            show.note("Compiling pooled MAML …")
            # first and alone, so that the first step comes soon
            compile_ahead(self._pooled_trainer(), Pooled(self.data()), show=show)
            jobs = [
                lambda: compile_ahead(learner, self.data()),
                *self._programs_to_judge(),
                lambda: self._one_distribution(self.optimised(), Silent()),
                lambda: self._costs,
                *self._search(folder).jobs(),
            ]
        with beside(*jobs):
            start = self._start(folder, show)
        return eqx.tree_at(
            lambda tower: (_net_of(_maml_of(tower)), _sgd_of(_maml_of(tower)).rate),
            learner,
            (start.objective, _sgd_of(start).rate),
        )

    def contestants(self, artefact: Descend, folder: Path, show: Progress) -> dict[str, Learner]:
        """Ours, and what is left of it without storey 2, or with its rates on other leaves and steps."""
        start = self.begin(self.learner(), folder, show).objective.learner
        nonsense = shuffled(start, artefact, jax.random.key(self.seed), rates_of)
        return {OURS: artefact, FROZEN: start, SHUFFLED: nonsense}

    def conclude(self, artefact: Descend, folder: Path, show: Progress) -> Conclusion:
        ablations = self.contestants(artefact, folder, show)
        contestants = {OURS: ablations.pop(OURS), **self.baselines(folder, show), **ablations}
        conclusion = verdict(self, contestants, ("pooled MAML + K",), self._notes(folder, show), show)
        conclusion.figures.update(self._rates(artefact))
        conclusion.figures.update(self._one_distribution(artefact, show))
        return conclusion

    def _notes(self, folder: Path, show: Progress) -> list[str]:
        """What exactly was run, and what each contestant had of compute."""
        pooled_rates, found = self._chosen(folder, show)
        ours_step, pooled_step, meta_step = self._costs
        ours = self.steps * ours_step + self.pooled_steps * pooled_step
        theirs = (self.pooled_steps + self.pooled_extra) * pooled_step
        runs = self.searched * self.searched_on
        # the meta-steps only, without the judgement: what random search is said to have had is a lower bound
        one_run = self.meta_steps * meta_step
        tried = ", ".join(f"{rate:g}" for rate in POOLED_RATES)
        rate, decay = pooled_rates
        return [
            f"{self.steps:,} storey-2 steps of {self.distributions} distributions each; on every distribution a run of "
            f"K = {self.meta_steps} meta-steps of {self.meta_batch} tasks with {self.inner_steps} inner steps, judged "
            f"on {self.judged} other tasks of it. Storey 2 starts from {self.pooled_steps:,} steps of pooled MAML. "
            f"Seed {self.seed}.",
            f"Judged on {self.episodes} distributions, the same for all: K meta-steps on one pool of tasks of "
            f"the distribution, then {self.final_judged} tasks of a disjoint pool. Intervals are over distributions, "
            "of one training run with one seed.",
            f"Pooled MAML had {theirs / ours:.2f} times the floating-point operations of storey 2 and its start "
            f"together; its outer rate ({rate:g}) and momentum ({decay:g}) were the best of {tried} and "
            f"{', '.join(f'{each:g}' for each in POOLED_DECAYS)} on {self.tuned_on} validation distributions.",
            f"Random search tried {self.searched} pairs of an inner and an outer rate, {runs:,} runs of K meta-steps "
            f"from fresh weights, against {self.steps * self.distributions:,} runs that storey 2 differentiated "
            f"through, and at least {runs * one_run / (self.steps * ours_step):.2f} times storey 2's floating-point "
            f"operations; it chose {found[0]:.3g} and {found[1]:.3g}. Default MAML: inner rate 0.01, Adam at 0.001, "
            "fresh weights.",
            "No setting of any contestant was chosen on the distributions that it is judged on.",
        ]

    def _one_distribution(self, artefact: Descend, show: Progress) -> dict[str, Any]:
        """What a run does on one held-out distribution: adaptation before and after it, and a task of it."""
        world = sampled(self.held_out(), jax.random.key(self.seed))
        state = train(artefact, world.support, steps=self.meta_steps, seed=self.seed)
        contestants = {
            "before the run": artefact.objective.learner,
            f"after {self.meta_steps} meta-steps": artefact.result(state).learner,
        }
        series = {}
        for name, learner in contestants.items():
            found = adaptation_scores(
                learner,
                world.query,
                episodes=200,
                seed=self.seed,
                steps=2 * self.inner_steps,
                show=show,
                title=f"one distribution, {name}",
            )
            series[name] = interval(found[self.metric])
        adaptation = Curves(
            f"One held-out distribution: {self.metric} on 200 tasks of it against MAML's inner steps, before and after "
            f"the run on other tasks of it. Trained for {self.inner_steps} inner steps.",
            "inner steps on a task",
            self.metric if self.metric == "accuracy" else "mean squared error",
            series,
            log=self.metric == "loss",
        )
        return {"adaptation": adaptation, "samples": self.sample_of(artefact.result(state).learner, world.query)}

    def _rates(self, artefact: Descend) -> dict[str, Rates]:
        """Heat maps of the learned rates: inner per leaf and step, outer rates and momentum per leaf and meta-step."""
        maml, rule = artefact.objective.learner, artefact.rule.rule.rule
        inner = np.asarray(value(_sgd_of(maml).rate.numbers)).T
        moved = [_short(name) for name in names(maml)]
        adapted = [_short(name) for name in names(_net_of(maml), self.adapted)]
        return {
            "inner_rates": Rates(
                "Inner rates that storey 2 has learned, per layer and inner step.",
                tuple(adapted),
                inner,
                self.inner_rate,
            ),
            "outer_rates": Rates(
                "Outer rates that storey 2 has learned: how far each meta-step of a run moves each leaf of MAML.",
                tuple(moved),
                np.asarray(value(rule.rate.numbers)).T,
                self.outer_rate,
            ),
            "outer_momentum": Rates(
                "Momentum that storey 2 has learned: the share of the last meta-step's direction that is kept.",
                tuple(moved),
                np.asarray(value(rule.decay.numbers)).T,
                label="learned decay",
                linear=True,
            ),
        }


def rates_of(trainer):
    """Inner rates, and outer rates with their momentum: the tables that storey 2 learns."""
    return trainer.objective.learner.rule, trainer.rule


def _maml_of(tree):
    """Storey 0 of a storey-2 learner or objective."""
    storey_1 = tree.objective.learner if hasattr(tree, "objective") else tree.learner
    return storey_1.objective.learner


def _net_of(maml):
    """The network and its plain loss."""
    return maml.objective.objective if hasattr(maml.objective, "objective") else maml.objective


def _net_of_loss(objective):
    return objective.objective


def _sgd_of(maml):
    """The rule at the bottom, which has the inner rates."""
    rule = maml.rule
    while hasattr(rule, "rule"):
        rule = rule.rule
    return rule


def _short(name: str) -> str:
    if name.endswith("rate.numbers.log"):
        return "inner rates"
    name = name.removeprefix("objective.").removeprefix("objective.").removeprefix("rule.")
    return name.removeprefix("net.").replace("layers.", "layer ").replace(".", " ")
