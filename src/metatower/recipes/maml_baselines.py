"""MAML's baselines at storey 2, whatever stands above them: pooled MAML and its tuning, random search, judging."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Descend, Expected, Learner, Objective, Selector, Tasks, lift, pick, put, value
from metatower.core.describe import base_steps
from metatower.core.plan import step_flops
from metatower.evaluation.conclusion import Scores
from metatower.evaluation.episodes import evaluate, judged_on, sampled
from metatower.recipes.base import Recipe
from metatower.recipes.random_search import RandomSearch
from metatower.rules import PerLeaf, adam, anneal, clip, momentum, per_step, rates_for, sgd
from metatower.tasks.pooled import Pooled
from metatower.training.beside import beside
from metatower.training.files import make_folder, new_folder, read_json, write_json
from metatower.training.loop import train
from metatower.training.progress import Progress, Silent
from metatower.training.store import load_arrays, save_arrays

INNER_CLIP = 10.0
"""Global norm that gradients are scaled down to on storey 0."""
POOLED_WEIGHT_RATE, POOLED_RATE_RATE, POOLED_CLIP = 1e-3, 1e-2, 10.0
"""Adam's step sizes for the weights and the log-rates of pooled MAML, and the norm its gradients are scaled down to."""
POOLED_RATES, POOLED_DECAYS = (0.003, 0.01, 0.03, 0.1, 0.3), (0.0, 0.5)
"""Outer rates, and decays of momentum, among which pooled MAML's best are chosen for its runs."""
POOLED_FACTORS, POOLED_FALLS = (1.0, 2.0), (3.0, 1.0, 1 / 3, 1 / 10)
"""Times the tuned outer rate at the first meta-step, and the rate at the last one over that at the first."""
NOT_MOVED = 1e-12
"""The outer rate of leaves that a baseline does not learn."""
CHUNK = 50
"""Distributions that are judged at the same time; other numbers of them compile programs of their own."""
START = "start"
"""The folder of what storey 2 sets out from, in that of the baselines."""
ARRAYS = "start.safetensors"
"""What it holds, with a record beside it."""
SEARCHED = "random-search.json"
"""What random search has found, there too."""
TUNING_SEED, SEARCH_SEED = 101, 202
"""Added to the seed for the distributions on which baselines are tuned: never those that are judged on."""


@dataclass(frozen=True)
class MAMLBaselines(Recipe):
    """What recipes at storey 2 share that are judged beside MAML; a subclass gives network and family."""

    chunk: ClassVar[int] = CHUNK
    """Distributions that are judged at the same time."""
    pooled_weight_rate: ClassVar[float] = POOLED_WEIGHT_RATE
    """Adam's step size for the weights of pooled MAML."""
    may_be_zero: ClassVar[tuple[str, ...]] = ("outer_decay",)
    """Options among the floating-point ones that need not be above zero."""

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
    bias_rate: float | None = None
    """Where the inner rates of biases start; at inner_rate if not given."""
    outer_rate: float = 0.1
    """Where all outer rates start."""
    outer_decay: float = 0.5
    """Where the decays of the outer momentum start."""
    outer_clip: float = 1.0
    """Global norm that MAML's meta-gradients are scaled down to."""
    pooled_steps: int = 6000
    """Steps of pooled MAML from which storey 2 starts."""
    pooled_batch: int = 16
    """Tasks per step of pooled MAML, each from a distribution of its own."""
    pooled_extra: int = 18_500
    """Further steps of pooled MAML as a baseline, to give it at least the compute of storey 2."""
    searched: int = 320
    """Candidates of the random search over inner and outer rate."""
    searched_on: int = 50
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
            if isinstance(getattr(self, field.name), float) and field.name not in self.may_be_zero:
                self.above_zero(field.name)
            elif field.type is int and field.name not in ("seed", "steps", "pooled_steps", "pooled_extra"):
                self.at_least_one(field.name)

    @abstractmethod
    def objective(self, seed: int) -> Objective:
        """The network and its loss, with fresh weights."""

    @abstractmethod
    def family(self, split: str) -> Tasks:
        """The family of distributions for "train", "validation" (to choose settings and tune baselines) or "test"."""

    def outputs(self) -> int:
        """How many numbers a prediction has."""
        raise NotImplementedError

    @property
    @abstractmethod
    def metric(self) -> str:
        """What rates and baselines are chosen by: "loss" or "accuracy"."""

    @property
    def adapted(self) -> Selector | None:
        """Which leaves of the objective move on a task; all if None. The storeys above learn all in any case."""
        return None

    @abstractmethod
    def contestants(self, artefact: Any, folder: Path, show: Progress) -> dict[str, Learner]:
        """What is trained here and its own ablations by name, ours first; each makes a whole run on a distribution."""

    def compared(self, artefact: Any, folder: Path, show: Progress) -> dict[str, Learner]:
        """The `contestants` of `metatower compare`: fewer, where some of them need a training of their own."""
        return self.contestants(artefact, folder, show)

    def flops_of_step(self) -> float:
        """Floating-point operations of one storey-2 step, as a mean over steps."""
        return step_flops(self.learner(), self.data())

    def flops_besides(self) -> float:
        """Of what is searched and judged before and after the steps, to train the artefact."""
        return 0.0

    def lowered(self, flops: float) -> dict[str, int]:
        """The options that have to be lower for `flops_besides` to be at most so many, as far as that can be."""
        del flops
        return {}

    def evaluations(self) -> int | None:
        """Base-learner gradients that one storey-2 step evaluates; None if nobody knows."""
        return base_steps(self.learner())

    def maml(self) -> Descend:
        """Storey 0: MAML's adaptation, with a rate per layer and step."""
        objective = self.objective(self.seed)
        other = () if self.bias_rate is None or not biases(objective) else ((biases, self.bias_rate),)
        rates = rates_for(objective, self.inner_rate, steps=self.inner_steps, learn=self.adapted, overrides=other)
        return Descend(objective, clip(per_step(sgd(rates)), INNER_CLIP), self.inner_steps, learn=self.adapted)

    def trainer(self, storey_0: Learner | None = None) -> Descend:
        """Storey 1: one run on one distribution, of MAML if not told otherwise; outer rates per leaf and meta-step."""
        storey_0 = self.maml() if storey_0 is None else storey_0
        rates = rates_for(Expected(storey_0), self.outer_rate, steps=self.meta_steps)
        # as such, and not through their logarithms: a decay may go to zero and below
        decays = PerLeaf(jnp.full_like(value(rates.numbers), self.outer_decay))
        rule = clip(per_step(momentum(rates, decays)), self.outer_clip)
        return lift(storey_0, rule, batch=self.meta_batch, steps=self.meta_steps, judged=self.judged)

    def data(self) -> Tasks:
        return self.family("train")

    def held_out(self) -> Tasks:
        return self.family("test")

    def judged_on(self) -> dict[str, Tasks]:
        """Held-out families by what is appended to the names of their rows."""
        return {"": self.held_out()}

    def baselines(self, folder: Path, show: Progress) -> dict[str, Learner]:
        """The usual baselines by name, each a whole run on a distribution; what was trained or tuned stays so."""
        # the search needs nothing of pooled MAML, whose steps are too short to keep more than one core busy
        with beside(*self._search(folder).jobs()):
            pooled = self._pooled(self.pooled_steps + self.pooled_extra, folder, show)
        tuned, _ = self._tuned_pooled(pooled, show, folder)
        found, _ = self._random_search(show, folder)
        return {
            "default MAML": self._default(),
            "MAML, rates from random search": found,
            "pooled MAML": dataclasses.replace(tuned, steps=0),
            "pooled MAML + K": tuned,
            "pooled MAML + 5K": dataclasses.replace(tuned, steps=5 * self.meta_steps),
        }

    def _default(self) -> Descend:
        """MAML as its users first meet it: fresh weights, inner rate 0.01, Adam at 0.001."""
        maml = Descend(self.objective(self.seed), sgd(0.01), steps=self.inner_steps)
        return lift(maml, adam(1e-3), batch=self.meta_batch, steps=self.meta_steps)

    def _programs_to_judge(self) -> list[Callable[[], object]]:
        """Jobs that compile what rates are tuned and runs are judged with, by judging one step of fresh ones."""

        def job(learner: Descend, judged: int) -> Callable[[], object]:
            short = dataclasses.replace(learner, steps=1)
            return lambda: self._judge(short, self.held_out(), self.searched_on, 0, Silent(), "", judged)

        both = self.judged, self.final_judged
        return [job(learner, judged) for learner in (self.trainer(), self._default()) for judged in both]

    @cached_property
    def _costs(self) -> tuple[float, float, float]:
        """Floating-point operations of a step of the top storey, of a step of pooled MAML, of a meta-step of a run."""
        data = self.data()
        return (
            self.flops_of_step(),
            step_flops(self._pooled_trainer(), Pooled(data)),
            step_flops(self.trainer(), self._one_of(data)),
        )

    def _chosen(self, folder: Path, show: Progress) -> tuple[tuple[float, float], tuple[float, float]]:
        """The outer rate and momentum of pooled MAML, and the inner and outer rate that random search has found."""
        pooled = self._pooled(self.pooled_steps + self.pooled_extra, folder, show)
        return self._tuned_pooled(pooled, show, folder)[1], self._random_search(show, folder)[1]

    def _start(self, folder: Path, show: Progress) -> Descend:
        """Pooled MAML as storey 2 sets out from it."""
        place = folder / "baselines" / START
        if place.exists():
            return load_arrays(place / ARRAYS, self.maml())[0]
        maml = self._pooled(self.pooled_steps, folder, show)
        with new_folder(place) as new:  # the arrays and their record together, or nothing
            save_arrays(new / ARRAYS, maml, {"recipe": self.name})
        return maml

    def _pooled_trainer(self) -> Descend:
        """MAML on the mixture of all training distributions: one storey lower, on the same tasks.

        Its rates are constant until storey 2 sets out from it, and then fall to zero as storey 2's do.
        """
        maml = self.maml()
        weights = (lambda objective: objective.learner.objective, self.pooled_weight_rate)
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

    def _judge(
        self, learner, family, episodes: int, seed: int, show: Progress, title: str, judged: int | None = None
    ) -> Scores:
        learner = judged_on(learner, judged or self.final_judged)
        chunk = min(self.chunk, self.searched_on)  # one shape for searches and verdicts: one program
        return evaluate(learner, family, episodes=episodes, seed=seed, chunk=chunk, show=show, title=title)

    def _with_rates(
        self, trainer: Descend, maml: Descend, outer: float, inner: float | None = None, decay: float = 0.0
    ) -> Descend:
        """The trainer with one outer rate and decay for the weights, and inner rates that the run does not move."""
        learned, weights = pick(maml), len(pick(maml.objective))
        if inner is not None:
            learned[weights:] = [jnp.full_like(x, np.log(inner)) for x in learned[weights:]]
        rates = [outer if i < weights else NOT_MOVED for i in range(len(learned))]
        table = self.meta_steps, len(rates)
        # of the types of a run of storey 2 (none of them weak), so that one program serves both
        decays = jnp.full(table, decay, jnp.float32)
        return put(trainer, [*learned, jnp.log(jnp.broadcast_to(jnp.asarray(rates), table)), decays])

    def _tuned_pooled(
        self, pooled: Descend, show: Progress, folder: Path | None = None
    ) -> tuple[Descend, tuple[float, float]]:
        """Pooled MAML as the start of a run, at the outer rate and momentum best on validation distributions."""
        trainer = self.trainer()
        candidates = {
            (rate, decay): self._with_rates(trainer, pooled, rate, decay=decay)
            for rate in POOLED_RATES
            for decay in POOLED_DECAYS
        }
        best = chosen_once(
            folder and folder / "baselines" / "pooled-rates.json",
            lambda: self._best(candidates, self.tuned_on, TUNING_SEED, show, "rate of pooled MAML"),
        )
        return candidates[best], best

    def _scheduled_pooled(
        self, pooled: Descend, tuned: tuple[float, float], show: Progress, folder: Path
    ) -> tuple[Descend, tuple[float, float]]:
        """Pooled MAML whose tuned outer rate rises or falls along the run: the schedule best on validation."""
        trainer = self.trainer()

        def scheduled(factor: float, fall: float) -> Descend:
            run = self._with_rates(trainer, pooled, tuned[0] * factor, decay=tuned[1])
            *rest, rates, decays = pick(run)
            slope = jnp.linspace(0.0, np.log(fall), self.meta_steps)[:, None]
            return put(run, [*rest, rates + slope, decays])

        candidates = {(f, fall): scheduled(f, fall) for f in POOLED_FACTORS for fall in POOLED_FALLS}
        best = chosen_once(
            folder / "baselines" / "pooled-schedule.json",
            lambda: self._best(candidates, self.tuned_on, TUNING_SEED, show, "schedule of pooled MAML"),
        )
        return scheduled(*best), best

    def _random_search(self, show: Progress, folder: Path | None = None) -> tuple[Descend, tuple[float, float]]:
        """MAML from fresh weights at the inner and outer rate that are best on validation distributions."""
        rates = self._search(folder).best(show)
        return self._candidates[rates], rates

    def _search(self, folder: Path | None) -> RandomSearch:
        def score(run: Learner, show: Progress) -> float:
            return self._score(run, self.searched_on, SEARCH_SEED, show, "random search")

        return RandomSearch(self._candidates, score, folder and folder / "baselines" / SEARCHED)

    @cached_property
    def _candidates(self) -> dict[tuple[float, float], Descend]:
        """The runs of the random search by their inner and outer rate."""
        trainer, maml = self.trainer(), self.maml()
        draws = 10 ** np.random.default_rng(self.seed).uniform((-3, -3), (0.3, 0.3), (self.searched, 2))
        return {(inner, outer): self._with_rates(trainer, maml, outer, inner) for inner, outer in draws.tolist()}

    def _best(self, candidates: dict, distributions: int, seed: int, show: Progress, title: str):
        return min(candidates, key=lambda each: self._score(candidates[each], distributions, seed, show, title))

    def _score(self, learner: Learner, distributions: int, seed: int, show: Progress, title: str) -> float:
        """What candidates are chosen by on validation distributions: the less the better."""
        sign, family = 1 if self.metric == "loss" else -1, self.family("validation")
        scores = self._judge(learner, family, distributions, self.seed_for(seed), show, title, self.judged)
        found = float(scores[self.metric].mean())
        return sign * found if np.isfinite(found) else np.inf

    def _one_of(self, family: Tasks) -> Tasks:
        return sampled(family, jax.random.key(self.seed)).support


def chosen_once(path: Path | None, choose: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """What was chosen, from the file of an earlier session if it is there."""
    if path is not None and path.exists():
        first, second = read_json(path, ("chosen",))["chosen"]
        return float(first), float(second)
    chosen = choose()
    if path is not None:
        make_folder(path.parent)
        write_json(path, {"chosen": list(chosen)})
    return chosen


def biases(objective: Any) -> list[Any]:
    """The leaves that are called so."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(objective)
    return [leaf for path, leaf in leaves if jax.tree_util.keystr(path).endswith("bias")]
