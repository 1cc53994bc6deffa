"""The loop over a Prototypical Network: how its features are trained on a distribution is itself trained."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np

from metatower.core import Descend, Expected, Learner, State, Tasks, lift, names, value
from metatower.core.plan import step_flops
from metatower.evaluation.comparison import shuffled
from metatower.evaluation.conclusion import Conclusion, Images, Rates
from metatower.evaluation.episodes import sampled
from metatower.gradients import Clipped
from metatower.learners.prototypical import PrototypicalNetwork
from metatower.nets import MLP
from metatower.recipes import feature_baselines
from metatower.recipes.feature_baselines import PROTOTYPES
from metatower.recipes.maml_baselines import MAMLBaselines
from metatower.recipes.on_glyphs import OnGlyphs
from metatower.recipes.verdict import verdict
from metatower.rules import adam, anneal, clip, kronecker, rates_for
from metatower.tasks.pooled import Pooled
from metatower.training.beside import beside
from metatower.training.files import new_folder
from metatower.training.loop import compile_ahead
from metatower.training.progress import Progress
from metatower.training.store import load_arrays, save_arrays

TOP_CLIP = 1.0
"""Global norm that gradients are scaled down to on storey 2."""
OURS = "optimised Prototypical Network"
FROZEN = "storey 2 frozen at its start"
SHUFFLED = "storey 2's rates shuffled"
START, ARRAYS = "start-of-features", "start.safetensors"
"""The folder of what storey 2 sets out from, in that of the baselines, and what it holds."""


@dataclass(frozen=True)
class OptimisedPrototypical(MAMLBaselines):
    """What the recipe shares with the family of `metatower compare`; a subclass gives features and distributions.

    Storey 0 is a Prototypical Network, which takes no gradient step on a task. Storey 1 trains its features on a
    distribution, for K meta-steps. Storey 2 trains what those set out from, how far each goes, and in which directions.
    """

    name: ClassVar[str] = "optimised-prototypical"
    may_be_zero: ClassVar[tuple[str, ...]] = ("outer_decay", "decay_rate", "preconditioner_rate", "run_clip")

    distributions: int = 16
    """Distributions per storey-2 step; on each, one fresh run."""
    weight_rate: float = 1e-3
    """Storey 2's Adam step size for the initial weights."""
    rate_rate: float = 4e-2
    """Storey 2's Adam step size for the logarithms of the outer rates."""
    decay_rate: float = 4e-2
    """Storey 2's Adam step size for the decays of the outer momentum."""
    preconditioner_rate: float = 1e-3
    """Storey 2's Adam step size for the Kronecker preconditioner of the meta-gradients; at 0 it stays the identity."""
    run_clip: float = 1.0
    """Norm that the gradient of each run is scaled down to before they are averaged; 0 for as it is."""
    feature_steps: int = 15_000
    """Steps of the pooled Prototypical Network from which storey 2 starts."""
    feature_extra: int = 118_000
    """Further steps of it as a baseline, to give it at least the compute of storey 2."""

    @abstractmethod
    def features(self, seed: int) -> Any:
        """A network that gives features, with fresh weights."""

    def learner(self) -> Descend:
        trainer = self.trainer(PrototypicalNetwork(self.features(self.seed)))
        rule: Any = trainer.rule
        # its identity at first, which `trainer` needs not know of
        conditioned = kronecker(trainer.objective, rule.rule)
        trainer = replace(trainer, rule=clip(conditioned, self.outer_clip))
        top = (
            (lambda objective: objective.learner.objective, self.weight_rate),
            (lambda objective: _momentum_of(objective.learner).rate, self.rate_rate),
            (lambda objective: _momentum_of(objective.learner).decay, self.decay_rate),
        )
        rates = rates_for(Expected(trainer), self.preconditioner_rate, overrides=top, learned=False)
        rule = anneal(clip(adam(rates), TOP_CLIP), end=max(1, self.steps))
        return lift(trainer, rule, batch=self.distributions, gradient=Clipped(self.run_clip) if self.run_clip else None)

    def artefact(self, learner: Descend, state: State) -> Descend:
        return learner.result(state).learner

    def evaluations(self) -> int:
        """Base-learner gradients that one storey-2 step evaluates: none, as nothing moves on a task."""
        return 0

    def begin(self, learner: Descend, folder: Path, show: Progress) -> Descend:
        """The tower with the features of the pooled Prototypical Network, from which storey 2 sets out."""
        place = folder / "baselines" / START
        if place.exists():
            net = load_arrays(place / ARRAYS, self.features(self.seed))[0]
        else:
            with beside(lambda: compile_ahead(learner, self.data())):
                net = self._pooled_features(self.feature_steps, folder, show).objective.learner.net
            with new_folder(place) as new:  # the arrays and their record together, or nothing
                save_arrays(new / ARRAYS, net, {"recipe": self.name})
        return eqx.tree_at(lambda tower: _head_of(_storey_1(tower)).net, learner, net)

    def contestants(self, artefact: Descend, folder: Path, show: Progress) -> dict[str, Learner]:
        """Ours, and what is left of it without storey 2, or with its rates on other leaves and steps."""
        start = _storey_1(self.begin(self.learner(), folder, show))
        nonsense = shuffled(start, artefact, jax.random.key(self.seed), lambda trainer: trainer.rule)
        return {OURS: artefact, FROZEN: start, SHUFFLED: nonsense}

    def baselines(self, folder: Path, show: Progress) -> dict[str, Learner]:
        """The Prototypical Network on mixed distributions, as it is and after runs at tuned rates; and MAML's."""
        head = self._pooled_features(self.feature_steps + self.feature_extra, folder, show)
        tuned, _ = feature_baselines.then_k(self, PROTOTYPES, head, folder, show)
        return {
            PROTOTYPES: head,
            f"{PROTOTYPES} + K": tuned,
            f"{PROTOTYPES} + 5K": replace(tuned, steps=5 * self.meta_steps),
            **super().baselines(folder, show),
        }

    def conclude(self, artefact: Descend, folder: Path, show: Progress) -> Conclusion:
        ablations = self.contestants(artefact, folder, show)
        contestants = {OURS: ablations.pop(OURS), **self.baselines(folder, show), **ablations}
        conclusion = verdict(self, contestants, (f"{PROTOTYPES} + K",), self._notes(folder, show), show)
        conclusion.figures.update(self._rates(artefact))
        return conclusion

    def _pooled_features(self, steps: int, folder: Path, show: Progress) -> Descend:
        """The pooled Prototypical Network after so many steps; a longer training continues a shorter one."""
        whole = self.feature_steps + self.feature_extra
        net = self.features(self.seed)
        return feature_baselines.pooled(
            self, PROTOTYPES, net, steps, folder, show, steady=self.feature_steps, of=whole
        )  # fmt: skip

    def _notes(self, folder: Path, show: Progress) -> list[str]:
        """What exactly was run, and what each contestant had of compute."""
        data, net = self.data(), self.features(self.seed)
        whole = self.feature_steps + self.feature_extra
        head = self._pooled_features(whole, folder, show)
        _, (rate, decay) = feature_baselines.then_k(self, PROTOTYPES, head, folder, show)
        step = step_flops(feature_baselines.trainer(self, PROTOTYPES, net, whole, self.feature_steps), Pooled(data))
        ours = self.steps * step_flops(self.learner(), data) + self.feature_steps * step
        mamls = (self.pooled_steps + self.pooled_extra) * step_flops(self._pooled_trainer(), Pooled(data))
        return [
            f"{self.steps:,} storey-2 steps of {self.distributions} distributions each; on every distribution a run of "
            f"K = {self.meta_steps} meta-steps of {self.meta_batch} tasks, judged on {self.judged} other tasks of it. "
            f"Storey 2 starts from {self.feature_steps:,} steps of the pooled Prototypical Network. Seed {self.seed}.",
            f"Judged on {self.episodes} distributions, the same for all: K meta-steps on one pool of tasks of "
            f"the distribution, then {self.final_judged} tasks of a disjoint pool. Intervals are over distributions, "
            "of one training run with one seed.",
            f"The pooled Prototypical Network had {whole * step / ours:.2f} times the floating-point operations of "
            f"storey 2 and its start together, pooled MAML {mamls / ours:.2f} times; its outer rate ({rate:g}) and "
            f"momentum ({decay:g}) were the best of ten pairs on {self.tuned_on} validation distributions.",
            "The numbers of all contestants were chosen on validation distributions.",
        ]

    def _rates(self, artefact: Descend) -> dict[str, Rates]:
        """Heat maps of what storey 2 has learned per leaf and meta-step."""
        rule, head = _momentum_of(artefact), _head_of(artefact)
        leaves = tuple(name.removeprefix("net.").replace("layers.", "layer ").replace(".", " ") for name in names(head))
        return {
            "outer_rates": Rates(
                "Outer rates that storey 2 has learned: how far each meta-step moves each leaf of the features.",
                leaves,
                np.asarray(value(rule.rate.numbers)).T,
                self.outer_rate,
            ),
            "outer_momentum": Rates(
                "Momentum that storey 2 has learned: the share of the last meta-step's direction that is kept.",
                leaves,
                np.asarray(value(rule.decay.numbers)).T,
                label="learned decay",
                linear=True,
            ),
        }


@dataclass(frozen=True)
class OptimisedPrototypicalGlyphs(OnGlyphs, OptimisedPrototypical):
    """A meta-meta-learner improves how a Prototypical Network is trained, on real pictures of letters.

    The distributions are those of the main job, `optimised-maml`: what counts as the class belongs to the distribution.
    A Prototypical Network whose features take a few meta-steps on a distribution is the strongest baseline there.
    Storey 2 trains what these features start from, an outer rate and momentum per leaf and meta-step, and a Kronecker
    preconditioner of the meta-gradients.
    """

    may_be_zero: ClassVar[tuple[str, ...]] = (
        "outer_decay",
        "decay_rate",
        "preconditioner_rate",
        "nuisance",
        "run_clip",
    )

    steps: int = 400
    meta_batch: int = 4
    outer_rate: float = 0.2
    searched: int = 242
    pooled_steps: int = 15_000
    pooled_extra: int = 30_800

    def features(self, seed: int) -> MLP:
        return MLP((self.size**2, *self.hidden), key=jax.random.key(seed))

    def conclude(self, artefact: Descend, folder: Path, show: Progress) -> Conclusion:
        conclusion = super().conclude(artefact, folder, show)
        world = sampled(self.held_out(), jax.random.key(self.seed))
        conclusion.figures["samples"] = self._sample(artefact, world.support, world.query)
        return conclusion

    def _sample(self, artefact: Descend, world: Tasks, judged: Tasks) -> Images:
        """A task of a held-out distribution after the run on it."""
        state = artefact.adapt(world, key=jax.random.key(self.seed))
        head: Any = artefact.result(state).learner

        def answers(task, key):
            return head.predict(head.adapt(task.support, key=key), task.query)

        caption = (
            "One task of a held-out distribution, and what the optimised Prototypical Network says of its queries."
        )
        return self.figure_of(judged, answers, caption)


def _storey_1(tower: Any) -> Any:
    """Storey 1 of a storey-2 learner."""
    return tower.objective.learner


def _head_of(trainer: Any) -> Any:
    """Storey 0 of storey 1."""
    return trainer.objective.learner


def _momentum_of(trainer: Any) -> Any:
    """The rule at the bottom of storey 1, below the clip, the preconditioner and what counts the meta-steps."""
    return trainer.rule.rule.rule.rule
