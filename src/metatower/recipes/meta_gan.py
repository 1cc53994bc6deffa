"""Meta-GAN: from a few tasks of a distribution, a network whose structure and weights adapt to its tasks in a step."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Constant, Descend, Learner, Objective, State, Tasks, lift, value
from metatower.core.keys import fork
from metatower.evaluation.comparison import shuffled
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.generated import drawn
from metatower.evaluation.predictions import Predictions, predictions
from metatower.evaluation.statistics import interval
from metatower.learners.elites import from_elites
from metatower.learners.meta_gan import MetaGAN, meta_gan, prescribed
from metatower.learners.meta_gan_trainer import MetaGANTrainer, meta_gan_trainer
from metatower.nets import Supervised
from metatower.nets.super_net import OfOps, of_ops, super_net
from metatower.recipes.maml_baselines import CHUNK, INNER_CLIP, MAMLBaselines
from metatower.recipes.meta_gan_notes import (
    about_memory,
    about_run,
    evaluations_of_step,
    flops_of_step,
    judge_ensembles,
)
from metatower.recipes.meta_gan_structures import about_structures, best_of, called, of_fixed_structures
from metatower.recipes.on_functions import OnFunctions
from metatower.rules import adam, anneal, clip, rates_for, sgd
from metatower.tasks.functions import HALF_WIDTH, FunctionFamily
from metatower.tasks.pooled import Mismatched, Pooled
from metatower.training.loop import train
from metatower.training.progress import Progress

OURS = "meta-GAN"
AFTER = (0, 1, 3, 10)
"""Numbers of inner steps after which everything is judged, beside that of training."""
TOP_CLIP = 1.0
"""Global norm that the gradients of both players are scaled down to."""
REFINING = (0.003, 0.01, 0.03)
"""Outer rates among which that of refining is chosen."""
PROBES = 32
"""Inputs at which fingerprints look."""
CHOSEN_SEED = 303
"""Added to the seed for the distributions on which widths of densities and rates of elites are chosen."""


@dataclass(frozen=True)
class MetaGANFunctions(OnFunctions, MAMLBaselines):
    """A generator reads a few tasks of a distribution of functions, and emits a network that adapts to others fast.

    A distribution is a kind of function with an amplitude, a frequency, an offset, a shift and a noise of its own; its
    tasks differ in phase. The generator chooses the operation of each layer (ReLU, tanh, sine, Gaussian, none) and the
    units that are there, and writes initial weights and step sizes; then at most three gradient steps on five points
    learn a task. A discriminator, which sees what networks do and never their weights, compares them with networks that
    were trained for long. Judged by the loss after 0, 1, 3 and 10 steps, on fresh distributions and on kinds of
    function that no training has seen (sawtooth and bumps), beside MAML, its own ablations, and the networks trained
    for long.
    """

    name: ClassVar[str] = "meta-gan"
    may_be_zero: ClassVar[tuple[str, ...]] = (
        "outer_decay",
        "adversarial",
        "diversity",
        "cost",
        "usage",
        "penalty",
        "explore",
    )

    steps: int = 2000
    distributions: int = 6
    """Distributions per storey-2 step."""
    tasks: int = 3
    """Tasks of each on which two draws of the generator are judged, in training."""
    context: int = 16
    """Tasks of each that the generator reads, in training."""
    network_rate: float = 1e-3
    """Adam's step size for encoder, generator and mean network."""
    judge_rate: float = 1e-3
    """Adam's step size for the discriminator."""
    adversarial: float = 0.1
    """λ_a: how much the discriminator's word counts."""
    diversity: float = 0.1
    """λ_d: how much two draws are to differ."""
    cost: float = 0.01
    """λ_c: the price of the whole super-net."""
    usage: float = 0.0
    """How much the entropy of all operations in use counts."""
    explore: float = 0.5
    """In which share of the steps some structures are random, ever fewer."""
    credit: Literal["score", "straight-through"] = "score"
    """The gradient of the operations: REINFORCE with the other draw as the baseline, or straight-through."""
    penalty: float = 0.1
    """γ of R1 and R2."""
    pairs: int = 4
    """Generated networks and elites that the discriminator compares per step."""
    elites: int = 256
    """Networks trained for long that are kept to compare with."""
    fresh: int = 4
    """How many new ones, every eight steps."""
    long: int = 100
    """Adam steps of each."""
    draws: int = 10
    """Members of an ensemble."""
    grid: Literal["each layer", "all layers"] = "each layer"
    """Which fixed structures are compared: all operations of each layer, or the same operation on all layers."""
    grid_steps: int = 400
    """Steps of MAML for each kind of function with each fixed structure, to see which suits which."""
    generated_rate: float = 0.05
    """Where the mean of all generated step sizes starts."""
    inner_rate: float = 0.02
    outer_rate: float = 0.02
    outer_clip: float = 10.0
    outer_decay: float = 0.0
    pooled_steps: int = 8000
    pooled_extra: int = 16_000
    tuned_on: int = 60
    final_judged: int = 32

    @property
    def after(self) -> tuple[int, ...]:
        """Numbers of inner steps after which everything is judged."""
        return tuple(sorted({*AFTER, self.inner_steps}))

    # What is trained.

    def of_ops(self, ops: str | tuple[str, ...]) -> Objective:
        """The super-net with these operations, with fresh weights."""
        inputs, outputs = self.numbers()
        net = super_net((inputs, *self.hidden, outputs), ops, key=jax.random.key(self.seed))
        return Supervised(net, self.criterion)

    def learner(self) -> MetaGANTrainer:
        keys = fork(jax.random.key(self.seed), 2)
        objective = self.of_ops("relu")
        rates = rates_for(objective, self.generated_rate)
        base = Descend(objective, clip(sgd(rates), INNER_CLIP), self.inner_steps)
        learner = meta_gan(
            base, *self.numbers(), key=keys[0], steps=self.meta_steps, batch=self.meta_batch, judged=self.judged
        )
        end = max(1, self.steps)
        rates = {"generator": self.network_rate, "discriminator": self.judge_rate}
        return meta_gan_trainer(
            learner,
            self.data(),
            self.probes(),
            {name: anneal(clip(adam(rate), TOP_CLIP), end=end) for name, rate in rates.items()},
            key=keys[1],
            adversarial=self.adversarial,
            diversity=self.diversity,
            cost=self.cost,
            usage=self.usage,
            penalty=self.penalty,
            distributions=self.distributions,
            tasks=self.tasks,
            context=self.context,
            pairs=self.pairs,
            bank=self.elites,
            fresh=self.fresh,
            long=self.long,
            warm=max(1, self.steps // 6),
            cool=max(1, self.steps // 2),
            explore=round(self.explore * self.steps),
            credit=self.credit,
        )

    def flops_of_step(self) -> float:
        return flops_of_step(self)

    def evaluations(self) -> int:
        return evaluations_of_step(self.learner())

    def probes(self) -> jax.Array:
        """Where fingerprints look: along the line, or at inputs of some training tasks where there is no line."""
        if isinstance(self.data(), FunctionFamily):
            return jnp.linspace(-HALF_WIDTH, HALF_WIDTH, PROBES)[:, None]
        tasks = Pooled(self.data())
        inputs = jax.vmap(lambda key: tasks.sample(key).query.x)(fork(jax.random.key(self.seed), PROBES))
        return inputs.reshape(-1, *inputs.shape[2:])[:: inputs.shape[1]]

    def artefact(self, learner: MetaGANTrainer, state: State) -> MetaGAN:
        """The learner of distributions, with the elites of its training."""
        return dataclasses.replace(learner.result(state), elites=Constant(state.elites))

    # What it is compared with.

    def contestants(self, artefact: MetaGAN, folder: Path, show: Progress) -> dict[str, Learner]:
        return self._beside(artefact, best_of(of_fixed_structures(self, folder, show)), folder, show)

    def _beside(self, artefact: MetaGAN, best: tuple[str, ...], folder: Path, show: Progress) -> dict[str, Learner]:
        """Ours, and its own ablations, one of them of the structure `best`: each a run of K reading steps."""
        ours = dataclasses.replace(artefact, elites=None)
        given = of_ops(best, max(self.hidden)).ops
        untrained = dataclasses.replace(self.learner().learner, elites=None)
        return {
            OURS: ours,
            f"{OURS}, refined": self._refined(ours, show),
            "no adversarial term": self._without("adversarial", "generated", None, folder, show),
            f"fixed best structure ({called(best)})": self._without("structure", "given", given, folder, show),
            "random structure": self._without("random", "random", None, folder, show),
            **self._elites(artefact, show),
            "storey 2 frozen at its start": untrained,
        }

    def compared(self, artefact: MetaGAN, folder: Path, show: Progress) -> dict[str, Learner]:
        del folder, show
        ours, start = (dataclasses.replace(each, elites=None) for each in (artefact, self.learner().learner))
        return {
            OURS: ours,
            "storey 2 frozen at its start": start,
            "storey 2 shuffled": shuffled(start, ours, jax.random.key(self.seed)),
        }

    def _without(self, name: str, kind: str, ops: Any, folder: Path, show: Progress) -> MetaGAN:
        """The same training, with one thing changed."""
        trainer = self.learner()
        trainer = dataclasses.replace(trainer, learner=prescribed(trainer.learner, kind, ops))
        if name == "adversarial":
            trainer = eqx.tree_at(lambda trainer: trainer.terms.content.adversarial, trainer, jnp.zeros(()))
        state = self.trained(trainer, self.data(), self.steps, folder / "baselines" / f"without-{name}", show)
        return trainer.result(state)

    def _refined(self, ours: MetaGAN, show: Progress) -> MetaGAN:
        """Ours with a meta-gradient step on what is generated at each reading, at the best rate of some."""

        def refined(rate: float) -> MetaGAN:
            return dataclasses.replace(ours, refine=clip(sgd(Constant(jnp.asarray(rate))), self.outer_clip))

        def loss(rate: float) -> float:
            said = self._predicted(refined(rate), "validation", self.tuned_on, CHOSEN_SEED, show, "rates of refining")
            return float(said.losses()[self.inner_steps].mean())

        return refined(min(REFINING, key=loss))

    def _elites(self, artefact: MetaGAN, show: Progress) -> dict[str, MetaGAN]:
        """The plainest memories; the factor of the elites' rates is the best of some on validation distributions."""
        bank, plain = value(artefact.elites), dataclasses.replace(artefact, elites=None)
        found = {}
        for how in ("nearest", "noise", "average"):

            def taken(faster: float, how: Any = how) -> MetaGAN:
                return from_elites(plain, bank, how, faster=jnp.asarray(faster))

            losses = {
                faster: self._predicted(
                    taken(faster), "validation", self.tuned_on, CHOSEN_SEED, show, "rates of elites"
                )
                .losses()[self.inner_steps]
                .mean()
                for faster in (0.03, 0.1, 0.3, 1.0)
            }
            names = {"nearest": "nearest elite", "noise": "nearest elite + noise", "average": "average of 8 elites"}
            found[names[how]] = taken(min(losses, key=lambda each: losses[each]))
        return found

    def maml_of(self, objective: Objective, steps: int) -> Descend:
        rates = rates_for(objective, self.generated_rate)
        maml = Descend(objective, clip(sgd(rates), INNER_CLIP), self.inner_steps)
        return lift(maml, anneal(clip(adam(3e-3), TOP_CLIP), end=steps), batch=self.pooled_batch)

    def _members(self, steps: int, folder: Path, show: Progress) -> list[Descend]:
        """Pooled MAML as often as an ensemble has draws, from other weights each, for so many steps in all."""
        each = max(2, steps // self.draws)
        found = []
        for member in range(self.draws):
            recipe = dataclasses.replace(
                self, seed=self.seed_for(1 + member), pooled_steps=each // 2, pooled_extra=each - each // 2
            )
            found.append(recipe._pooled(each, folder / "baselines" / f"member-{member}", show))
        return found

    def trained(self, trainer: Any, data: Tasks, steps: int, where: Path, show: Progress, seed: int | None = None):
        options = {name: value for name, value in self.options().items() if name != "steps"}
        return train(
            trainer, data, steps=steps, seed=self.seed if seed is None else seed, folder=where, config=options,
            title=where.name, show=show,
        )  # fmt: skip

    # How it is judged.

    def conclude(self, artefact: MetaGAN, folder: Path, show: Progress) -> Conclusion:
        steps = self.pooled_steps + self.pooled_extra
        grid = of_fixed_structures(self, folder, show)
        best = best_of(grid)
        contestants: dict[str, Any] = self._beside(artefact, best, folder, show)
        ours = contestants[OURS]
        pooled = self._pooled(steps, folder, show)
        tuned, rates = self._tuned_pooled(pooled, show)
        single = dataclasses.replace(self, inner_steps=1)
        one_step = single._pooled(steps, folder / "baselines" / "one-step", show)
        of_best = WithOps(**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, ops=best)
        best_pooled = of_best._pooled(steps, folder / "baselines" / "best-structure", show)
        of_best_tuned, _ = of_best._tuned_pooled(best_pooled, show)
        contestants |= {
            "default MAML": self._default(),
            "MAML, rates from random search": self._random_search(show, folder)[0],
            "pooled MAML": dataclasses.replace(tuned, steps=0),
            "pooled MAML, trained for one step": dataclasses.replace(
                single._with_rates(single.trainer(), one_step, 0.1), steps=0
            ),
            "pooled MAML + K": tuned,
            "pooled MAML + 5K": dataclasses.replace(tuned, steps=5 * self.meta_steps),
            f"pooled MAML of {called(best)} units + K": of_best_tuned,
        }
        conclusion = Conclusion(notes=about_run(self, rates))
        for label, family in self.judged_on().items():
            said = {
                name: self._predicted(learner, family, self.episodes, 0, show, f"judging: {name}{label}")
                for name, learner in contestants.items()
            }
            name = "context of another distribution"
            said[name] = self._predicted(ours, Mismatched(family), self.episodes, 0, show, f"judging: {name}{label}")
            losses = {name: each.losses() for name, each in said.items()}
            for name, each in losses.items():
                for n in self.after:
                    conclusion.add(f"{name}, {n} steps{label}", {"loss": each[n]}, "distribution")
            for n in (1, self.inner_steps):
                others = (f"{name}, {n} steps{label}" for name in losses if name != OURS)
                conclusion.compare(f"{OURS}, {n} steps{label}", *others)
            ratio = losses["pooled MAML"][1].mean() / losses[OURS][1].mean()
            fair = losses["pooled MAML, trained for one step"][1].mean() / losses[OURS][1].mean()
            conclusion.notes.append(
                f"After one step{label} pooled MAML has {ratio:.2f} times the loss of ours, and pooled MAML that was "
                f"trained for one step {fair:.2f} times."
            )
            shown = (
                OURS,
                "no adversarial term",
                "pooled MAML",
                "pooled MAML + K",
                f"pooled MAML of {called(best)} units + K",
            )
            conclusion.figures[f"steps{len(conclusion.figures)}"] = Curves(
                f"Loss against gradient steps on a task{label}: means over {self.episodes} distributions, with 95 % "
                f"intervals. Trained for {self.inner_steps} steps.",
                "gradient steps on a task",
                "mean squared error",
                {name: interval(np.stack([losses[name][n] for n in self.after], axis=1)) for name in shown},
                x=np.asarray(self.after),
                log=True,
            )
        members = self._members(steps, folder, show)
        ensembles = {
            OURS: [drawn(ours, i) for i in range(self.draws)],
            "no adversarial term": [drawn(contestants["no adversarial term"], i) for i in range(self.draws)],
            "nearest elite + noise": [drawn(contestants["nearest elite + noise"], i) for i in range(self.draws)],
            "MAML + K": [self._with_rates(self.trainer(), member, rates[0], decay=rates[1]) for member in members],
        }
        judge_ensembles(self, conclusion, ensembles, CHOSEN_SEED, show)
        conclusion.notes += about_structures(self, ours, grid) + about_memory(self, artefact)
        return conclusion

    def _predicted(
        self,
        learner: Any,
        family: Tasks | str,
        episodes: int,
        seed: int,
        show: Progress,
        title: str,
    ) -> Predictions:
        return predictions(
            learner,
            self.family(family) if isinstance(family, str) else family,
            self.after,
            episodes=episodes,
            seed=self.seed_for(seed),
            tasks=self.final_judged,
            chunk=CHUNK,
            show=show,
            title=title,
        )


@dataclass(frozen=True)
class WithOps(MetaGANFunctions):
    """The same, whose baselines are made of networks of these operations."""

    ops: tuple[str, ...] = ()

    def objective(self, seed: int) -> Objective:
        inputs, outputs = self.numbers()
        layers = super_net((inputs, *self.hidden, outputs), key=jax.random.key(seed)).layers
        return Supervised(OfOps(layers, self.ops), self.criterion)
