"""Hierarchical reinforcement learning: a policy guides meta-training on distributions with corrupted sources."""

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Descend, Learner, State, Tasks, lift, pick
from metatower.core.plan import step_flops
from metatower.evaluation.acceptance import accepted
from metatower.evaluation.comparison import shuffled
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.episodes import episode_keys
from metatower.evaluation.statistics import interval
from metatower.gradients import ScoreFunction
from metatower.learners import Guided
from metatower.nets.controller import GAIN, Controller, ManagerWorker, at_rest, decided
from metatower.nets.schedulers import RandomChoice
from metatower.recipes.hierarchical_rivals import (
    CHOICES,
    DEFAULT_CHOICE,
    DRIFT,
    best_bandit,
    best_schedule,
    best_thumb,
    in_words,
    scheduled,
    static,
)
from metatower.recipes.maml_baselines import MAMLBaselines
from metatower.rules import adam, anneal, clip, momentum
from metatower.training.progress import Progress

OURS = "hierarchical RL"
STATIC, BANDIT, REST = "best static schedule", "learning-progress bandit", "controller frozen at its start"
DRIFTING = "best schedule of rates"
PROBE, JUDGED = 1, 2
"""The pools that rewards and verdicts come from; tasks to learn from are of pool 0."""
GATE_SEED = 303
TOP_CLIP = 1.0


@dataclass(frozen=True)
class Hierarchical(MAMLBaselines):
    """What the recipes share; a subclass gives the distributions, whose sources may be corrupted."""

    may_be_zero: ClassVar[tuple[str, ...]] = ("outer_decay", "cost", "held_out_share", "start_drift")

    meta_steps: int = 30
    distributions: int = 4
    """Distributions per storey-2 step."""
    runs: int = 4
    """Runs on each of them, of which the others are the baseline of each; at least 2."""
    policy_rate: float = 0.002
    """Storey 2's Adam step size for the policy's weights."""
    every: int = 3
    """Meta-steps per option of the manager."""
    bins: int = 8
    """Sources of a distribution."""
    shares: tuple[float, ...] = (0.0, 0.25, 0.5)
    """Shares of corrupted sources in training."""
    held_out_share: float = 0.6
    """Share of corrupted sources that no training distribution has."""
    cost: float = 0.0
    """What a gradient evaluation costs, in units of log loss."""
    start_searched: int = 390
    """Schedules that are tried for the start."""
    start_drift: float = DRIFT
    """By how much their log rates may move over a run; 0 for static ones."""
    thumbs: tuple[float, ...] = (1.0, 3.0, 10.0)
    """Logits per unit of gain by which sources may be drawn at the start, beside taking all in turn; 0: only that."""
    gate: int = 150
    """Validation distributions on which the policy has to be better than its start."""

    @abstractmethod
    def corrupted(self, shares: tuple[float, ...], pool: int) -> Tasks:
        """Distributions to train on with these shares of corrupted sources, judged on clean tasks of this pool."""

    def guided(self, controller: Controller, maml: Descend | None = None, logs: Any = (0.0, 0.0, -9.0)) -> Guided:
        """Storey 1 under this controller, from the weights of `maml` and these defaults."""
        return Guided(
            maml or self.maml(), clip(momentum(self.outer_rate, self.outer_decay), self.outer_clip), controller,
            jnp.asarray(logs, jnp.float32), steps=self.meta_steps, horizon=self.meta_steps, batch=self.meta_batch,
            bins=self.bins, every=self.every, choices=CHOICES, judged=self.judged, cost=self.cost,
        )  # fmt: skip

    def policy(self, default: int = DEFAULT_CHOICE) -> ManagerWorker:
        """A policy whose worker moves the rates as by default, and whose manager tries options around its own."""
        numbers = self.guided(static(default)).numbers
        key = jax.random.key(self.seed)
        return ManagerWorker(numbers, key=key, choices=len(CHOICES), default=default, explores=True, smooth=True)

    def learner(self) -> Descend:
        guided = dataclasses.replace(self.guided(self.policy()), rewarded=True)
        top = anneal(clip(adam(self.policy_rate), TOP_CLIP), end=max(1, self.steps))
        gradient = ScoreFunction(self.runs)
        return lift(guided, top, batch=self.distributions, gradient=gradient, learn=lambda guided: guided.controller)

    def begin(self, learner: Descend, folder: Path, show: Progress) -> Descend:
        """The tower over pooled MAML, at the schedule that the search found."""
        maml = self._start(folder, show)
        schedule = best_schedule(self, maml, self.start_searched, folder, show, self.start_drift)
        controller = best_thumb(self, learner.objective.learner.controller, maml, schedule, folder, show)
        return eqx.tree_at(
            lambda tower: tuple(getattr(tower.objective.learner, name) for name in ("learner", "logs", "controller")),
            learner,
            (maml, jnp.asarray(schedule[0], jnp.float32), controller),
        )

    def artefact(self, learner: Descend, state: State) -> Guided:
        return _shipped(learner.result(state).learner)

    def finish(self, artefact: Guided, show: Progress) -> Guided:
        """The policy if it is better than the default on fresh distributions, with one-sided 95 % confidence."""
        default = dataclasses.replace(artefact, controller=at_rest(artefact.controller))
        family, seed = self.family("validation"), self.seed_for(GATE_SEED)
        losses = [
            self._judge(each, family, self.gate, seed, show, f"gate: {name}")["loss"]
            for each, name in ((artefact, "policy"), (default, "default"))
        ]
        return artefact if accepted(losses[0], losses[1]) else default

    def contestants(self, artefact: Any, folder: Path, show: Progress) -> dict[str, Learner]:
        """The family's own: the guided run, its ablations, and who else chooses tasks or rates."""
        start = _shipped(self.begin(self.learner(), folder, show).objective.learner)
        more = self.start_searched + self._runs_worth // self.searched_on
        schedules = {
            name: scheduled(self, start.learner, *best_schedule(self, start.learner, more, folder, show, drift))
            for name, drift in ((STATIC, 0.0), (DRIFTING, DRIFT))
        }

        def by(controller, **other) -> Guided:
            return dataclasses.replace(artefact, controller=controller, **other)

        return {
            OURS: artefact,
            **schedules,
            BANDIT: best_bandit(self, list(schedules.values()), show),
            "random controller": by(RandomChoice(jnp.array(0.3), len(CHOICES))),
            REST: start,
            "controller shuffled": by(shuffled(start.controller, artefact.controller, jax.random.key(self.seed))),
            "manager frozen": by(only_the(artefact.controller, "worker")),
            "worker frozen": by(only_the(artefact.controller, "manager")),
        }

    def compared(self, artefact: Any, folder: Path, show: Progress) -> dict[str, Learner]:
        start = _shipped(self.begin(self.learner(), folder, show).objective.learner)
        mixed = shuffled(start.controller, artefact.controller, jax.random.key(self.seed))
        return {
            OURS: artefact,
            "storey 2 frozen at its start": start,
            "storey 2 shuffled": dataclasses.replace(artefact, controller=mixed),
        }

    def conclude(self, artefact: Any, folder: Path, show: Progress) -> Conclusion:
        contestants = {**self.contestants(artefact, folder, show), **self.baselines(folder, show)}
        conclusion = Conclusion(notes=self._notes(artefact, contestants))
        for label, family in self.judged_on().items():
            for name, learner in contestants.items():
                scores = self._judge(learner, family, self.episodes, self.seed, show, f"judging: {name}{label}")
                conclusion.add(name + label, scores, "distribution")
            others = [name for name in contestants if name != OURS]
            conclusion.compare(OURS + label, *(name + label for name in others))
            conclusion.notes += [_in_percent(conclusion, label, name) for name in (STATIC, DRIFTING, BANDIT, REST)]
        conclusion.figures.update(self._choices(artefact))
        return conclusion

    def evaluations(self) -> int:
        # as many inner steps as may be chosen are worked out, whatever is chosen; probes judge both ends of a run
        a_run = self.meta_steps * self.meta_batch * max(CHOICES) + 2 * self.judged * self.inner_steps
        return self.distributions * self.runs * a_run

    def flops_besides(self) -> float:
        rules = len({0.0, *self.thumbs})
        searched = self.start_searched + (rules if rules > 1 else 0)  # one rule alone is not searched for
        return (searched * self.searched_on + 2 * self.gate) * self._flops_of_run

    def lowered(self, flops: float) -> dict[str, int]:
        share = flops / self.flops_besides()
        searched, gate = (max(2, int(share * number)) for number in (self.start_searched, self.gate))
        return {"start_searched": searched, "gate": gate} if share < 1 else {}

    @cached_property
    def _flops_of_run(self) -> float:
        a_step = step_flops(self.guided(static(DEFAULT_CHOICE)), self._one_of(self.data()))
        return self.meta_steps * a_step

    @cached_property
    def _runs_worth(self) -> int:
        """The runs at a static schedule that take as many floating-point operations as the policy's training."""
        return round(self.steps * self.flops_of_step() / self._flops_of_run)

    def _notes(self, artefact: Guided, contestants: dict[str, Any]) -> list[str]:
        resting = all(
            np.array_equal(a, b)
            for a, b in zip(pick(artefact.controller), pick(at_rest(artefact.controller)), strict=True)
        )
        given = artefact.controller.given.size + artefact.controller.drift.size  # not trained
        size = sum(leaf.size for leaf in pick(artefact.controller)) - given
        weight = float(artefact.controller.unit * artefact.controller.given[GAIN])
        runs = self.steps * self.distributions * self.runs
        return [
            "The policy was not better than the default on fresh distributions, with one-sided 95 % confidence: the "
            "default ships, and its rows are those of the default."
            if resting
            else f"The policy was accepted: on {self.gate} validation distributions the one-sided 95 % lower bound of "
            "its paired improvement in log loss over the default is above zero.",
            f"{self.steps:,} storey-2 steps of {self.distributions} distributions with {self.runs} runs on each, of a "
            f"policy with {size:,} numbers: {runs:,} runs of K = {self.meta_steps} meta-steps of {self.meta_batch} "
            f"tasks. It starts from {self.pooled_steps:,} steps of pooled MAML and the best of {self.start_searched} "
            f"{'schedules whose rates may move' if self.start_drift else 'static schedules'}, "
            + (f"with sources drawn by {weight:g} logits per unit of gain" if weight else "all sources in turn")
            + f". Seed {self.seed}.",
            "Schedules were chosen among "
            f"{self.start_searched + self._runs_worth // self.searched_on:,}, each on {self.searched_on} validation "
            "distributions, with as many floating-point operations as the policy's training. "
            f"Static: {in_words(contestants[STATIC])}. With rates that move: {in_words(contestants[DRIFTING])}. The "
            "bandit (EXP3), with the rates of one of them and sources drawn or weighted, whatever was best on "
            f"validation: {in_words(contestants[BANDIT])}.",
            f"Judged on {self.episodes} distributions, the same for all, each by {self.final_judged} clean tasks of a "
            "pool that neither training nor rewards nor searches have used. Intervals are over distributions, of one "
            "training run.",
        ]

    def _choices(self, artefact: Guided) -> dict[str, Curves]:
        """What manager and worker do during runs."""
        family = self.corrupted((max(self.shares),), JUDGED)
        found = traces(artefact, family, min(self.episodes, 50), self.seed)
        rates = {name: interval(found[name]) for name in ("inner rate", "outer rate", "proximal weight")}
        along = np.arange(1, self.meta_steps + 1)
        return {
            "sources": Curves(
                f"Share of tasks taken from corrupted sources, {max(self.shares):.0%} of all.",
                "meta-step",
                "share",
                {"tasks from corrupted sources": interval(found["corrupted"])},
                x=along,
            ),
            "inner_steps": Curves(
                "Inner steps that the manager chooses.",
                "meta-step",
                "inner steps",
                {"inner steps": interval(found["inner steps"])},
                x=along,
            ),
            "worker": Curves(
                "What schedule and worker make of the rates: factors of those at the beginning.",
                "meta-step",
                "factor",
                rates,
                x=along,
                log=True,
            ),
        }


def _shipped(guided: Guided) -> Guided:
    """As it is judged and kept: nothing is drawn, and the loss is that of the queries."""
    return dataclasses.replace(guided, rewarded=False, controller=decided(guided.controller))


def only_the(controller: ManagerWorker, part: str) -> ManagerWorker:
    """The controller of which the other part is at rest."""
    rest = at_rest(controller)
    one, other = (rest, controller) if part == "worker" else (controller, rest)
    return eqx.tree_at(lambda each: (each.change, each.reflex), one, (other.change, other.reflex))


def traces(guided: Guided, family: Tasks, episodes: int, seed: int) -> dict[str, np.ndarray]:
    """What was chosen at each meta-step of runs on distributions of a corrupted family, each `[episode, step]`."""

    @eqx.filter_jit
    def one(guided, family, key):
        world = family.sample(key).support

        def step(state, key):
            state = guided.step(state, world, key=key)
            factors = jnp.exp(state.logs - guided.logs)
            wrong = jnp.mean(world.chance[state.seen.drawn])
            return state, (wrong, jnp.asarray(guided.choices)[state.option.inner], *factors)

        keys = jax.random.split(key, guided.steps)
        return jax.lax.scan(step, guided.start(key=key), keys)[1]

    found = jax.vmap(lambda key: one(guided, family, key))(episode_keys(seed, 0, episodes))
    names = ("corrupted", "inner steps", "inner rate", "outer rate", "proximal weight")
    return {name: np.asarray(each, float) for name, each in zip(names, found, strict=True)}


def _in_percent(conclusion: Conclusion, label: str, other: str) -> str:
    ours, theirs = (conclusion.scores[name + label]["loss"] for name in (OURS, other))
    each = interval(np.log(ours) - np.log(theirs))
    low, mean, high = (100 * (np.exp(x) - 1) for x in (each.lo, each.mean, each.hi))
    return (
        f"{OURS} against {other}{label}: {100 * (ours.mean() / theirs.mean() - 1):+.1f} % of the mean loss; as a "
        f"geometric mean over distributions {mean:+.1f} % [{low:+.1f}, {high:+.1f}]."
    )
