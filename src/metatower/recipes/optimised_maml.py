"""The MAML-based meta-meta-learning loop: MAML itself is trained, on whole meta-training runs."""

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Descend, Expected, Objective, Selector, State, Tasks, lift, names, pick, put, value
from metatower.core.plan import plan
from metatower.evaluation.conclusion import Conclusion, Curves, Rates, Scores
from metatower.evaluation.episodes import adaptation_scores, evaluate, judged_on
from metatower.evaluation.statistics import interval
from metatower.recipes.base import Recipe
from metatower.rules import PerLeaf, adam, anneal, clip, momentum, per_step, rates_for, sgd
from metatower.tasks.pooled import Pooled
from metatower.training.loop import train
from metatower.training.progress import Progress
from metatower.training.store import load_arrays, save_arrays

INNER_CLIP, TOP_CLIP = 10.0, 1.0
"""Global norms that gradients are scaled down to on storeys 0 and 2."""
POOLED_WEIGHT_RATE, POOLED_RATE_RATE, POOLED_CLIP = 1e-3, 1e-2, 10.0
"""Adam's step sizes for the weights and the log-rates of pooled MAML, and the norm its gradients are scaled down to."""
POOLED_RATES, POOLED_DECAYS = (0.003, 0.01, 0.03, 0.1, 0.3), (0.0, 0.5)
"""Outer rates, and decays of momentum, among which pooled MAML's best are chosen for its runs."""
NOT_MOVED = 1e-12
"""The outer rate of leaves that a baseline does not learn."""
CHUNK = 50
"""Distributions that are judged at the same time."""
OURS = "optimised MAML"
START = "start.safetensors"
"""What storey 2 sets out from, in the folder of the baselines."""
TUNING_SEED, SEARCH_SEED = 101, 202
"""Added to the seed for the distributions on which baselines are tuned: never those that are judged on."""


@dataclass(frozen=True)
class OptimisedMAML(Recipe):
    """What the recipes of the loop share; a subclass gives the network and the family of distributions."""

    distributions: int = 4
    """Distributions per storey-2 step; on each, one fresh run of MAML."""
    meta_steps: int = 10
    """K: MAML's meta-steps on a distribution, in training and when judged."""
    meta_batch: int = 8
    """Tasks per meta-step."""
    judged: int = 16
    """Tasks of a distribution on which the result of a run is judged, in training."""
    inner_steps: int = 3
    """Gradient steps on one task."""
    inner_rate: float = 0.1
    """Where all inner rates start."""
    outer_rate: float = 0.1
    """Where all outer rates start."""
    outer_decay: float = 0.5
    """Where the decays of the outer momentum start."""
    outer_clip: float = 1.0
    """Global norm that MAML's meta-gradients are scaled down to."""
    weight_rate: float = 4e-4
    """Storey 2's Adam step size for the initial weights."""
    rate_rate: float = 1.5e-2
    """Storey 2's Adam step size for the logarithms of all rates."""
    decay_rate: float = 4e-2
    """Storey 2's Adam step size for the decays of the outer momentum; 0 leaves them where they start."""
    pooled_steps: int = 6000
    """Steps of pooled MAML from which storey 2 starts."""
    pooled_batch: int = 16
    """Tasks per step of pooled MAML, each from a distribution of its own."""
    pooled_extra: int = 18_500
    """Further steps of pooled MAML as a baseline, to give it at least the compute of storey 2."""
    searched: int = 400
    """Candidates of the random search over inner and outer rate."""
    searched_on: int = 40
    """Distributions on which each of them is tried."""
    tuned_on: int = 100
    """Distributions on which the outer rate of pooled MAML is chosen."""
    episodes: int = 100
    """Held-out distributions to be judged on."""
    final_judged: int = 64
    """Tasks of a held-out distribution on which the result of a run is judged."""

    def check(self) -> None:
        super().check()
        for field in dataclasses.fields(self):
            if isinstance(getattr(self, field.name), float) and field.name not in ("outer_decay", "decay_rate"):
                self.above_zero(field.name)
            elif field.type is int and field.name not in ("seed", "steps", "pooled_steps", "pooled_extra"):
                self.at_least_one(field.name)

    @abstractmethod
    def objective(self, seed: int) -> Objective:
        """The network and its loss, with fresh weights."""

    @abstractmethod
    def family(self, split: str) -> Tasks:
        """The family of distributions for "train", "validation" (to choose settings and tune baselines) or "test"."""

    @property
    @abstractmethod
    def metric(self) -> str:
        """What rates and baselines are chosen by: "loss" or "accuracy"."""

    @abstractmethod
    def sample_of(self, maml: Descend, tasks: Tasks) -> Any:
        """A figure of a task with what `maml` predicts for it."""

    @property
    def adapted(self) -> Selector | None:
        """Which leaves of the objective move on a task; all if None. The storeys above learn all in any case."""
        return None

    def maml(self) -> Descend:
        """Storey 0: MAML's adaptation, with a rate per layer and step."""
        objective = self.objective(self.seed)
        rates = rates_for(objective, self.inner_rate, steps=self.inner_steps, learn=self.adapted)
        return Descend(objective, clip(per_step(sgd(rates)), INNER_CLIP), self.inner_steps, learn=self.adapted)

    def trainer(self) -> Descend:
        """Storey 1: one run of MAML on one distribution, with an outer rate and momentum per leaf and meta-step."""
        maml = self.maml()
        rates = rates_for(Expected(maml), self.outer_rate, steps=self.meta_steps)
        # as such, and not through their logarithms: a decay may go to zero and below
        decays = PerLeaf(jnp.full_like(value(rates.numbers), self.outer_decay))
        rule = clip(per_step(momentum(rates, decays)), self.outer_clip)
        return lift(maml, rule, batch=self.meta_batch, steps=self.meta_steps, judged=self.judged)

    def learner(self) -> Descend:
        trainer = self.trainer()
        rates = rates_for(
            Expected(trainer),
            self.rate_rate,
            overrides=(
                (lambda objective: _maml_of(objective).objective, self.weight_rate),
                (lambda objective: objective.learner.rule.rule.rule.decay, self.decay_rate),
            ),
            learned=False,
        )
        rule = anneal(clip(adam(rates), TOP_CLIP), end=max(1, self.steps))
        return lift(trainer, rule, batch=self.distributions)

    def data(self) -> Tasks:
        return self.family("train")

    def held_out(self) -> Tasks:
        return self.family("test")

    def artefact(self, learner: Descend, state: State) -> Descend:
        return learner.result(state).learner

    def begin(self, learner: Descend, folder: Path, show: Progress) -> Descend:
        """The tower with the weights and inner rates of pooled MAML, from which storey 2 sets out."""
        path, maml = folder / "baselines" / START, self.maml()
        if not path.exists():
            maml = self._pooled(self.pooled_steps, folder, show)
            save_arrays(path, maml, {"recipe": self.name})
        else:
            maml, _ = load_arrays(path, maml)
        return eqx.tree_at(_maml_of, learner, maml)

    def _pooled_trainer(self) -> Descend:
        """MAML on the mixture of all training distributions: one storey lower, on the same tasks.

        Its rates are constant until storey 2 sets out from it, and then fall to zero as storey 2's do.
        """
        maml = self.maml()
        weights = (lambda objective: objective.learner.objective, POOLED_WEIGHT_RATE)
        rates = rates_for(Expected(maml), POOLED_RATE_RATE, overrides=(weights,), learned=False)
        end = self.pooled_steps + max(1, self.pooled_extra)
        rule = anneal(clip(adam(rates), POOLED_CLIP), begin=self.pooled_steps, end=end)
        return lift(maml, rule, batch=self.pooled_batch)

    def _pooled(self, steps: int, folder: Path, show: Progress) -> Descend:
        """Pooled MAML after so many steps; a longer run continues a shorter one."""
        trainer = self._pooled_trainer()
        state = train(
            trainer,
            Pooled(self.data()),
            steps=steps,
            seed=self.seed,
            folder=folder / "baselines" / "pooled",
            config={n: v for n, v in self.options().items() if n != "steps"},
            title="pooled MAML",
            show=show,
        )
        return trainer.result(state).learner

    def conclude(self, artefact: Descend, folder: Path, show: Progress) -> Conclusion:
        start = self.begin(self.learner(), folder, show).objective.learner
        pooled = self._pooled(self.pooled_steps + self.pooled_extra, folder, show)
        tuned, pooled_rates = self._tuned_pooled(pooled, show)
        found, found_rates = self._random_search(show)
        default = Descend(self.objective(self.seed), sgd(0.01), steps=self.inner_steps)
        contestants = {
            OURS: artefact,
            "default MAML": lift(default, adam(1e-3), batch=self.meta_batch, steps=self.meta_steps),
            "MAML, rates from random search": found,
            "pooled MAML": dataclasses.replace(tuned, steps=0),
            "pooled MAML + K": tuned,
            "pooled MAML + 5K": dataclasses.replace(tuned, steps=5 * self.meta_steps),
            "storey 2 frozen at its start": start,
        }
        conclusion = Conclusion(notes=self._notes(pooled_rates, found_rates))
        for label, family in self.judged_on().items():
            for name, learner in contestants.items():
                scores = self._judge(learner, family, self.episodes, self.seed, show, f"judging: {name}{label}")
                conclusion.add(name + label, scores, "distribution")
            conclusion.compare(OURS + label, *(name + label for name in contestants if name != OURS))
        conclusion.figures["runs"] = self._curves(
            {name: contestants[name] for name in (OURS, "pooled MAML + K", "default MAML")}, show
        )
        conclusion.figures.update(self._rates(artefact))
        conclusion.figures.update(self._one_distribution(artefact, show))
        return conclusion

    def judged_on(self) -> dict[str, Tasks]:
        """Held-out families by what is appended to the names of their rows."""
        return {"": self.held_out()}

    def _judge(
        self, learner, family, episodes: int, seed: int, show: Progress, title: str, judged: int | None = None
    ) -> Scores:
        learner = judged_on(learner, judged or self.final_judged)
        return evaluate(learner, family, episodes=episodes, seed=seed, chunk=CHUNK, show=show, title=title)

    def _with_rates(
        self, trainer: Descend, maml: Descend, outer: float, inner: float | None = None, decay: float = 0.0
    ) -> Descend:
        """The trainer with one outer rate and decay for the weights, and inner rates that the run does not move."""
        learned, weights = pick(maml), len(pick(maml.objective))
        if inner is not None:
            learned[weights:] = [jnp.full_like(x, np.log(inner)) for x in learned[weights:]]
        rates = [outer if i < weights else NOT_MOVED for i in range(len(learned))]
        table = self.meta_steps, len(rates)
        return put(trainer, [*learned, jnp.log(jnp.broadcast_to(jnp.asarray(rates), table)), jnp.full(table, decay)])

    def _tuned_pooled(self, pooled: Descend, show: Progress) -> tuple[Descend, tuple[float, float]]:
        """Pooled MAML as the start of a run, at the outer rate and momentum best on validation distributions."""
        trainer = self.trainer()
        candidates = {
            (rate, decay): self._with_rates(trainer, pooled, rate, decay=decay)
            for rate in POOLED_RATES
            for decay in POOLED_DECAYS
        }
        best = self._best(candidates, self.tuned_on, TUNING_SEED, show, "rate of pooled MAML")
        return candidates[best], best

    def _random_search(self, show: Progress) -> tuple[Descend, tuple[float, float]]:
        """MAML from fresh weights at the inner and outer rate that are best on validation distributions."""
        trainer, maml = self.trainer(), self.maml()
        draws = 10 ** np.random.default_rng(self.seed).uniform((-3, -3), (0.3, 0.3), (self.searched, 2))
        candidates = {tuple(rates): self._with_rates(trainer, maml, rates[1], rates[0]) for rates in draws.tolist()}
        rates = self._best(candidates, self.searched_on, SEARCH_SEED, show, "random search")
        return candidates[rates], rates

    def _best(self, candidates: dict, distributions: int, seed: int, show: Progress, title: str):
        sign = 1 if self.metric == "loss" else -1
        family = self.family("validation")

        def score(learner):
            scores = self._judge(learner, family, distributions, self.seed_for(seed), show, title, self.judged)
            found = scores[self.metric].mean()
            return sign * found if np.isfinite(found) else np.inf

        return min(candidates, key=lambda each: score(candidates[each]))

    def _one_of(self, family: Tasks) -> Tasks:
        return family.sample(jax.random.key(self.seed)).support

    def _notes(self, pooled_rates: tuple[float, float], found: tuple[float, float]) -> list[str]:
        """What exactly was run, and what each contestant had of compute."""
        pooled = self._pooled_trainer()
        costs = [
            plan(tower, data, compile=False).costs[0].flops
            for tower, data in ((self.learner(), self.data()), (pooled, Pooled(self.data())))
        ]
        ours = self.steps * costs[0] + self.pooled_steps * costs[1]
        theirs = (self.pooled_steps + self.pooled_extra) * costs[1]
        runs = self.searched * self.searched_on
        # the meta-steps only, without the judgement: what random search is said to have had is a lower bound
        one_run = self.meta_steps * plan(self.trainer(), self._one_of(self.data()), compile=False).costs[0].flops
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
            f"through, and at least {runs * one_run / (self.steps * costs[0]):.2f} times storey 2's floating-point "
            f"operations; it chose {found[0]:.3g} and {found[1]:.3g}. Default MAML: inner rate 0.01, Adam at 0.001, "
            "fresh weights.",
            "No setting of any contestant was chosen on the distributions that it is judged on.",
        ]

    def _curves(self, learners: dict[str, Descend], show: Progress) -> Curves:
        """Loss or accuracy on held-out distributions after every meta-step of a fresh run."""
        series = {}
        for name, learner in learners.items():
            found = adaptation_scores(
                judged_on(learner, self.final_judged),
                self.held_out(),
                episodes=min(self.episodes, 20),
                seed=self.seed,
                steps=2 * self.meta_steps,
                chunk=CHUNK,
                show=show,
                title=f"run by run: {name}",
            )
            series[name] = interval(found[self.metric])
        return Curves(
            f"MAML at work on a distribution that it has never seen: {self.metric} on fresh tasks of it after every "
            f"meta-step. Storey 2 was trained for runs of {self.meta_steps}; what lies beyond is extrapolation.",
            "meta-steps on the new distribution",
            self.metric if self.metric == "accuracy" else "mean squared error",
            series,
            log=self.metric == "loss",
        )

    def _one_distribution(self, artefact: Descend, show: Progress) -> dict[str, Any]:
        """What a run does on one held-out distribution: adaptation before and after it, and a task of it."""
        world = self.held_out().sample(jax.random.key(self.seed))
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
        inner = np.asarray(value(maml.rule.rule.rule.rate.numbers)).T
        moved = [_short(name) for name in names(maml.objective)]
        adapted = [_short(name) for name in names(maml.objective, self.adapted)]
        return {
            "inner_rates": Rates(
                "Inner rates that storey 2 has learned, per layer and inner step.",
                tuple(adapted),
                inner,
                self.inner_rate,
            ),
            "outer_rates": Rates(
                "Outer rates that storey 2 has learned: how far each meta-step of a run moves each leaf of MAML.",
                (*moved, "inner rates"),
                np.asarray(value(rule.rate.numbers)).T,
                self.outer_rate,
            ),
            "outer_momentum": Rates(
                "Momentum that storey 2 has learned: the share of the last meta-step's direction that is kept.",
                (*moved, "inner rates"),
                np.asarray(value(rule.decay.numbers)).T,
                label="learned decay",
                linear=True,
            ),
        }


def _maml_of(tree):
    """Storey 0 of a storey-2 learner or objective."""
    storey_1 = tree.objective.learner if hasattr(tree, "objective") else tree.learner
    return storey_1.objective.learner


def _short(name: str) -> str:
    return name.removeprefix("net.").replace("layers.", "layer ").replace(".", " ")
