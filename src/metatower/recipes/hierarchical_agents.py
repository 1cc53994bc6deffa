"""Hierarchical reinforcement learning over RL learners: a coach guides the training of RL² agents."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Descend, State, Tasks, lift, pick
from metatower.envs import BanditFamily, BernoulliBandit
from metatower.evaluation.comparison import shuffled
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.episodes import evaluate, judged_on, scores_after
from metatower.evaluation.statistics import interval, paired
from metatower.gradients import Evolution
from metatower.learners import PPO, Coached, rl2
from metatower.learners.coached import levers
from metatower.nets.coach import LEVERS, Coach, Drift, ManagerCoach, Wanderer, resting
from metatower.recipes.base import IN_WORLDS, Recipe
from metatower.rules import adam, anneal, clip
from metatower.training.files import make_folder, read_json, write_json
from metatower.training.progress import Progress

OURS = "coached training"
STATIC, FALLING, GIVEN = "best static levers", "best falling step size", "levers as given"
REST, SHUFFLED, RANDOM = "coach frozen at its start", "coach shuffled", "random coach"
SEARCH_SEED, GATE_SEED, OTHER_WEIGHTS = 202, 303, 505
LOWEST, HIGHEST = (-1.5, -2.5, -2.5, -1.5), (1.5, 2.5, 2.5, 0.3)
"""Between which the random search draws what is added to the logs of the levers that are given."""
FALLS = (-0.05, -0.1, -0.15, -0.2)
"""By how much the log of the step size falls in each step of the falling schedules that are tried."""
WALK = 0.2
TOP_CLIP, CLIP = 1.0, 0.5
STATIC_FILE = "static.json"


@dataclass(frozen=True)
class HierarchicalAgents(Recipe):
    """A coach guides the training of agents that learn while they act, on families of bandits.

    A distribution is a range that the arms' chances come from; on each, an RL² agent is trained by a few steps of PPO
    from the same weights. At every step a worker changes the size of the steps, and at every other one a recurrent
    manager changes the weight of the entropy and both horizons. Storey 2 trains them by evolution strategies on what
    the finished agents gain. They start as the best static levers that a random search finds, and ship only if they are
    better than those on fresh distributions. Judged on distributions of the same family, and on narrower ones than any
    training run has seen, beside static, falling, random and frozen levers.
    """

    name: ClassVar[str] = "hierarchical-rl-agents"
    judges_itself: ClassVar[bool] = True
    use: ClassVar[str] = IN_WORLDS

    steps: int = 60
    distributions: int = 4
    """Distributions per storey-2 step."""
    pairs: int = 8
    """Antithetic pairs of coaches per storey-2 step."""
    spread: float = 0.05
    """Standard deviation by which their weights differ."""
    coach_rate: float = 0.02
    """Storey 2's Adam step size."""
    meta_steps: int = 20
    """K: steps of PPO in one training run."""
    every: int = 2
    """Steps per turn of the manager."""
    arms: int = 5
    """Arms of a bandit (k)."""
    episodes: int = 10
    """Pulls per trial (n)."""
    width: tuple[float, float] = (0.3, 0.8)
    """Least and largest width of the range that a distribution's arms pay with."""
    held_out_width: tuple[float, float] = (0.1, 0.3)
    """The same of distributions that no training run has."""
    trials: int = 64
    """Trials per step of PPO."""
    size: int = 32
    """Units of an agent's memory."""
    rate: float = 0.01
    """Adam's step size for the agent, where its factor is 1."""
    entropy: float = 0.01
    """Weight of the policy's entropy, as given."""
    discount: float = 0.99
    """γ as given."""
    trace: float = 0.3
    """λ as given."""
    judged: int = 256
    """Trials that a finished agent is judged on, in training and searches."""
    static_searched: int = 30
    """Static levers that are tried for the start."""
    searched_on: int = 40
    """Distributions on which each is tried."""
    gate: int = 200
    """Validation distributions on which the coach has to be better than its start."""
    tested: int = 100
    """Distributions of each kind to be judged on."""
    final_judged: int = 2048
    """Trials of a distribution on which the agents are judged in the end."""

    def check(self) -> None:
        super().check()
        counts = (field.name for field in dataclasses.fields(self) if field.type is int)
        self.at_least_one(*(name for name in counts if name not in ("seed", "steps")))
        self.above_zero("spread", "coach_rate", "rate", "entropy")

    def family(self, held_out: bool = False) -> BanditFamily:
        return BanditFamily(self.arms, self.held_out_width if held_out else self.width)

    def data(self) -> Tasks:
        return self.family()

    def held_out(self) -> Tasks:
        return self.family(held_out=True)

    def trainer(self, seed: int | None = None) -> PPO:
        """Storey 1: PPO of an agent with fresh weights."""
        key = jax.random.key(self.seed if seed is None else seed)
        agent = rl2(BernoulliBandit(self.arms), key=key, steps=self.episodes, size=self.size)
        return PPO(
            agent, clip(adam(self.rate), CLIP), self.episodes, trials=self.trials, discount=self.discount,
            trace=self.trace, entropy=self.entropy, judged=self.judged,
        )  # fmt: skip

    def coached(self, coach: Coach, logs: Any = None) -> Coached:
        """A training run under this coach, from the levers that are given, or from these."""
        trainer = self.trainer()
        logs = levers(trainer) if logs is None else jnp.asarray(logs, jnp.float32)
        return Coached(trainer, coach, logs, steps=self.meta_steps, horizon=self.meta_steps, every=self.every)

    def learner(self) -> Descend:
        coached = self.coached(ManagerCoach(key=jax.random.key(self.seed)))
        top = anneal(clip(adam(self.coach_rate), TOP_CLIP), end=max(1, self.steps))
        gradient = Evolution(self.pairs, self.spread)
        return lift(coached, top, batch=self.distributions, gradient=gradient, learn=lambda coached: coached.coach)

    def begin(self, learner: Descend, folder: Path, show: Progress) -> Descend:
        """The tower at the static levers that the search found."""
        logs = self._best_static(self.static_searched, folder, show)
        started = dataclasses.replace(learner.objective.learner, logs=jnp.asarray(logs, jnp.float32))
        return dataclasses.replace(learner, objective=dataclasses.replace(learner.objective, learner=started))

    def artefact(self, learner: Descend, state: State) -> Coached:
        return learner.result(state).learner

    def finish(self, artefact: Coached, show: Progress) -> Coached:
        """The coach if it is better than its start on fresh distributions, with one-sided 95 % confidence."""
        start = dataclasses.replace(artefact, coach=resting(artefact.coach))
        mine, theirs = (
            self._judge(each, self.data(), self.gate, GATE_SEED, show, f"gate: {name}")
            for each, name in ((artefact, "coach"), (start, "its start"))
        )
        return artefact if paired(mine, theirs, 0.9).lo > 0 else start

    def contestants(self, artefact: Coached, folder: Path, show: Progress) -> dict[str, Coached]:
        """Ours first, then its ablations and those that nothing was learned for, by name."""
        start = self.begin(self.learner(), folder, show).objective.learner
        logs = self._best_static(self.static_searched + self._runs_worth // self.searched_on, folder, show)

        def by(coach: Coach) -> Coached:
            return dataclasses.replace(artefact, coach=coach)

        mixed = shuffled(start.coach, artefact.coach, jax.random.key(self.seed))
        return {
            OURS: artefact,
            STATIC: self.coached(_still(), logs),
            FALLING: self._falling(logs, show),
            GIVEN: self.coached(_still()),
            RANDOM: by(Wanderer(jnp.array(WALK))),
            REST: start,
            SHUFFLED: by(mixed),
        }

    def conclude(self, artefact: Any, folder: Path, show: Progress) -> Conclusion:
        contestants = self.contestants(artefact, folder, show)
        conclusion = Conclusion(notes=self._notes(artefact, contestants[STATIC]))
        narrow, (least, most) = self.held_out(), self.held_out_width
        for label, family, change in (
            ("", self.data(), lambda each: each),
            (f" (widths {least:g} to {most:g})", narrow, lambda each: each),
            (" (other initial weights)", self.data(), self._from_other_weights),
            (" (2K steps)", self.data(), lambda each: dataclasses.replace(each, steps=2 * self.meta_steps)),
        ):
            for name, each in contestants.items():
                title = f"judging: {name}{label}"
                returns = self._judge(change(each), family, self.tested, 0, show, title, self.final_judged)
                conclusion.add(name + label, {"return": returns}, "distribution")
            conclusion.compare(OURS + label, *(name + label for name in contestants if name != OURS))
        conclusion.figures.update(self._figures(contestants, show))
        return conclusion

    def judge_fresh(self, artefact: Any, *, episodes: int | None, seed: int, show: Progress) -> Conclusion:
        count = episodes or self.tested
        conclusion = Conclusion(notes=[f"{count} fresh distributions, each by {self.final_judged:,} trials."])
        judged = dataclasses.replace(self, seed=seed)
        for name, each in {OURS: artefact, GIVEN: self.coached(_still())}.items():
            returns = judged._judge(each, self.data(), count, 0, show, f"judging: {name}", self.final_judged)
            conclusion.add(name, {"return": returns}, "distribution")
        conclusion.compare(OURS, GIVEN)
        return conclusion

    def _judge(
        self, coached: Coached, family: Tasks, count: int, stream: int, show: Progress, title: str, judged: int = 0
    ) -> np.ndarray:
        """What the agents gain that the runs on so many distributions end with."""
        learner, chunk = judged_on(coached, judged or self.judged), min(count, self.searched_on)
        seed = self.seed_for(stream)
        return evaluate(learner, family, episodes=count, seed=seed, chunk=chunk, show=show, title=title)["return"]

    def _best(self, candidates: dict[Any, Coached], show: Progress, title: str) -> Any:
        def score(coached: Coached) -> float:
            return float(self._judge(coached, self.data(), self.searched_on, SEARCH_SEED, show, title).mean())

        return max(candidates, key=lambda each: score(candidates[each]))

    def _best_static(self, count: int, folder: Path, show: Progress) -> list[float]:
        """The best of so many static levers on validation distributions; the first is what was given."""
        path = folder / "baselines" / STATIC_FILE
        kept = read_json(path) if path.exists() else {}
        if str(count) not in kept:
            rng, given = np.random.default_rng(self.seed), np.asarray(levers(self.trainer()))
            draws = [given, *(given + rng.uniform(LOWEST, HIGHEST) for _ in range(count - 1))]
            candidates = {tuple(map(float, logs)): self.coached(_still(), logs) for logs in draws}
            kept[str(count)] = list(self._best(candidates, show, "static levers"))
            make_folder(path.parent)
            write_json(path, kept)
        return kept[str(count)]

    def _falling(self, logs: list[float], show: Progress) -> Coached:
        """The best static levers, with the step size that falls from a larger one as is best on validation."""
        candidates = {}
        for fall in FALLS:
            above = np.asarray(logs) - [fall * self.meta_steps / 2, 0, 0, 0]
            candidates[fall] = self.coached(Drift(jnp.array([fall, 0.0, 0.0, 0.0])), above)
        return candidates[self._best(candidates, show, "falling step sizes")]

    def _from_other_weights(self, coached: Coached) -> Coached:
        agent = self.trainer(self.seed_for(OTHER_WEIGHTS)).agent
        return dataclasses.replace(coached, trainer=dataclasses.replace(coached.trainer, agent=agent))

    @cached_property
    def _runs_worth(self) -> int:
        """Training runs that the storey above has made: what a search of equal cost may make."""
        return self.steps * self.distributions * (2 * self.pairs + 1)

    def _notes(self, artefact: Coached, best: Coached) -> list[str]:
        pairs = zip(pick(artefact.coach), pick(resting(artefact.coach)), strict=True)
        rests = all(np.array_equal(a, b) for a, b in pairs)
        size = sum(leaf.size for leaf in pick(artefact.coach))
        found = ", ".join(f"{name} {number:.3g}" for name, number in zip(LEVERS, np.exp(best.logs), strict=True))
        tried = self.static_searched + self._runs_worth // self.searched_on
        return [
            "The coach was not better than its start on fresh distributions, with one-sided 95 % confidence: its start "
            "ships, and its rows are those of the start."
            if rests
            else f"The coach was accepted: on {self.gate} validation distributions the one-sided 95 % lower bound of "
            "its paired gain in return over its start is above zero.",
            f"{self.steps:,} storey-2 steps of {self.distributions} distributions and {self.pairs} antithetic pairs, "
            f"of a coach with {size:,} numbers: {self._runs_worth:,} runs of K = {self.meta_steps} steps of PPO with "
            f"{self.trials} trials of {self.episodes} pulls on {self.arms} arms. Seed {self.seed}.",
            f"The best static levers were chosen among {tried:,}, each on {self.searched_on} validation distributions, "
            f"with as many runs as the coach's training and {self.static_searched} searches of its start: {found} "
            "(factor of Adam's steps, entropy weight, 1 − γ, 1 − λ). The falling step size was chosen among "
            f"{len(FALLS)}, from those levers.",
            f"Judged on {self.tested} distributions of each kind, the same for all, each by {self.final_judged:,} "
            "trials. Intervals are over distributions, of one training run.",
        ]

    def _figures(self, contestants: dict[str, Coached], show: Progress) -> dict[str, Curves]:
        """How the return grows along a run."""
        steps = range(0, self.meta_steps + 1, max(1, self.meta_steps // 10))
        shown = {name: contestants[name] for name in (OURS, STATIC, FALLING, GIVEN)}
        count = min(self.tested, 2 * self.searched_on)
        chunk = min(count, self.searched_on)
        along = {
            name: interval(
                scores_after(each, self.data(), steps, episodes=count, seed=self.seed, chunk=chunk, show=show)["return"]
            )
            for name, each in shown.items()
        }
        caption = f"The return of a trial against the steps of training, on {count} distributions."
        return {"training": Curves(caption, "steps of PPO", "return", along, np.asarray(steps))}


def _still() -> Drift:
    return Drift(jnp.zeros(len(LEVERS)))
