"""A learned update rule in the place of MAML's Adam."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Constant, Descend, Expected, Rule, State, Tasks, lift
from metatower.core.keys import fork
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.episodes import judged_on, scores_after
from metatower.evaluation.statistics import interval
from metatower.gradients import Lifelong, rising_weights
from metatower.recipes.maml_baselines import CHUNK, INNER_CLIP, TUNING_SEED
from metatower.recipes.on_functions import OnFunctions
from metatower.rules import adam, anneal, clip, learned_lstm, learned_mlp, momentum, rates_for, sgd
from metatower.training.progress import Progress

OURS = "learned rule"
TOP_CLIP = 1.0
"""Global norm that storey 2's gradients are scaled down to."""
RATES = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
"""Among which the rates of hand-made rules are chosen."""
LONGER = 5
"""How many times the meta-steps of its training the rule is tried for."""


@dataclass(frozen=True)
class LearnedOuterRule(OnFunctions):
    """A learned rule takes the place of Adam in MAML, trained on whole meta-training runs.

    MAML starts from fresh weights on a distribution of functions. Its meta-gradients go to a small network, the same
    for every parameter, which says in what direction to move; a learned step size per layer says how far. Storey 2
    trains this rule, and nothing else, by the losses of whole runs. Judged by the meta-steps it takes to the loss of
    Adam, whose rate is tuned, on fresh distributions and on kinds of function that no training run has seen (sawtooth
    and bumps), from other initial weights than it was trained on, and over five times as many meta-steps.
    """

    name: ClassVar[str] = "learned-outer-rule"

    steps: int = 300
    rule: Literal["mlp", "lstm"] = "mlp"
    """The network: a small MLP on moving averages of the gradient, or an LSTM."""
    units: int = 8
    """Hidden units of the rule's network."""
    meta_steps: int = 20
    """K: meta-steps of one run of MAML in training."""
    meta_batch: int = 4
    """Tasks per meta-step."""
    judged: int = 8
    """Tasks on which the end of a run is judged, in training."""
    distributions: int = 4
    """Distributions per storey-2 step; on each, one run of MAML."""
    inner_steps: int = 3
    """Gradient steps on one task."""
    inner_rate: float = 0.02
    """Step size of MAML's adaptation."""
    outer_rate: float = 0.01
    """Where the rule's step sizes start."""
    rule_rate: float = 2e-2
    """Storey 2's Adam step size."""
    tuned_on: int = 50
    """Validation distributions on which the rates of hand-made rules are chosen."""
    episodes: int = 100
    """Held-out distributions to be judged on."""
    final_judged: int = 32
    """Tasks of each."""

    def check(self) -> None:
        super().check()
        self.at_least_one(
            *("units", "meta_steps", "meta_batch", "judged", "distributions", "inner_steps", "shots", "queries"),
            *("tuned_on", "episodes", "final_judged"),
        )
        self.above_zero("inner_rate", "outer_rate", "rule_rate")

    def trainer(self, rule: Rule | None = None, seed: int = 0) -> Descend:
        """MAML with an outer rule, the fresh learned one if none is given, from initial weights of this seed."""
        objective = self.objective(self.seed_for(seed))
        maml = Descend(objective, clip(sgd(self.inner_rate), INNER_CLIP), self.inner_steps)
        if rule is None:
            make: Any = learned_mlp if self.rule == "mlp" else learned_lstm
            rule = make(
                rates_for(Expected(maml), self.outer_rate),
                key=fork(jax.random.key(self.seed), 1)[0],
                power=jnp.array(0.0),
                decay=jnp.array(0.0),
                units=self.units,
            )
        return lift(maml, rule, batch=self.meta_batch, steps=self.meta_steps, judged=self.judged)

    def learner(self) -> Descend:
        top = anneal(clip(adam(self.rule_rate), TOP_CLIP), end=max(1, self.steps))
        gradient = Lifelong(rising_weights(self.meta_steps), logarithm=True)
        return lift(
            self.trainer(), top, batch=self.distributions, gradient=gradient, learn=lambda trainer: trainer.rule
        )

    def artefact(self, learner: Descend, state: State) -> Descend:
        return learner.result(state).learner

    def conclude(self, artefact: Descend, folder: Path, show: Progress) -> Conclusion:
        del folder
        short, long = self.meta_steps, LONGER * self.meta_steps
        after = [*range(short + 1), *(short * factor for factor in range(2, LONGER + 1))]
        chosen = {
            (name, steps): self._tuned(make, steps, show, name)
            for name, make in {"Adam": adam, "momentum": momentum, "gradient descent": sgd}.items()
            for steps in ((short, long) if name == "Adam" else (short,))
        }
        fresh = self.trainer().rule
        contestants: dict[str, tuple[Rule, int]] = {OURS: (artefact.rule, 0)}
        for (name, steps), (rate, rule) in chosen.items():
            contestants[f"{name}, rate {rate:g} (best at {steps})"] = rule, 0
        contestants["the rule frozen at its start"] = fresh, 0
        contestants[f"{OURS}, other initial weights"] = artefact.rule, 1
        tuned, tuned_longer = (f"Adam, rate {chosen['Adam', steps][0]:g} (best at {steps})" for steps in (short, long))
        contestants[f"{tuned}, other initial weights"] = contestants[tuned][0], 1
        conclusion = Conclusion(notes=self._notes())
        for label, family in self.judged_on().items():
            found = {}
            for name, (rule, seed) in contestants.items():
                found[name] = self._along(rule, seed, family, after, self.episodes, self.seed, show, name)
                for steps in (short // 2, short, long):
                    losses = found[name][:, after.index(steps)]
                    conclusion.add(f"{name}, {steps} meta-steps{label}", {"loss": losses}, "distribution")
            for ours, adams, other in ((short // 2, short, tuned), (short, short, tuned), (long, long, tuned_longer)):
                conclusion.compare(f"{OURS}, {ours} meta-steps{label}", f"{other}, {adams} meta-steps{label}")
            conclusion.compare(
                f"{OURS}, other initial weights, {short // 2} meta-steps{label}",
                f"{tuned}, other initial weights, {short} meta-steps{label}",
            )
            conclusion.compare(f"{OURS}, {long} meta-steps{label}", f"{OURS}, {short} meta-steps{label}")
            conclusion.notes += _reaches(found, tuned, after, short, label)
            conclusion.figures[f"runs{len(conclusion.figures)}"] = Curves(
                f"MAML from fresh weights on one distribution, by outer rule{label}: loss on other tasks of it after "
                f"every meta-step. The rule was trained for runs of {short}; what lies beyond is extrapolation.",
                "meta-steps",
                "mean squared error",
                {name: interval(losses) for name, losses in found.items() if "other" not in name},
                x=np.asarray(after),
                log=True,
            )
        return conclusion

    def _along(
        self,
        rule: Rule,
        seed: int,
        family: Tasks,
        after: list[int],
        episodes: int,
        stream: int,
        show: Progress,
        title: str,
    ) -> np.ndarray:
        """The loss of runs of MAML after so many meta-steps each, `[distribution, len(after)]`."""
        trainer = judged_on(self.trainer(rule, seed), self.final_judged)
        how = {"episodes": episodes, "seed": stream, "chunk": CHUNK, "show": show, "title": f"judging: {title}"}
        return scores_after(trainer, family, after, **how)["loss"]

    def _tuned(self, make: Any, steps: int, show: Progress, name: str) -> tuple[float, Rule]:
        """The rule at the rate that is best after so many meta-steps, on validation distributions."""
        rules = {rate: make(Constant(jnp.asarray(rate))) for rate in RATES}
        family, seed = self.family("validation"), self.seed_for(TUNING_SEED)

        def score(rule):
            losses = self._along(rule, 0, family, [steps], self.tuned_on, seed, show, f"rates of {name}")
            return losses.mean() if np.isfinite(losses.mean()) else np.inf

        best = min(RATES, key=lambda rate: score(rules[rate]))
        return best, rules[best]

    def _notes(self) -> list[str]:
        return [
            f"{self.steps:,} storey-2 steps of {self.distributions} runs of MAML each, of K = {self.meta_steps} "
            f"meta-steps of {self.meta_batch} tasks with {self.inner_steps} inner steps at {self.inner_rate:g}, all "
            f"from the same fresh weights. Only the rule is learned. Seed {self.seed}.",
            f"Judged on {self.episodes} distributions, the same for all, by {self.final_judged} tasks of another pool "
            "than the tasks that were learned from. Intervals are over distributions, of one training run.",
            f"The rates of hand-made rules were the best of {', '.join(f'{rate:g}' for rate in RATES)} on "
            f"{self.tuned_on} validation distributions, Adam's for {self.meta_steps} and for "
            f"{LONGER * self.meta_steps} meta-steps. They have a rate as their only learned number, the rule has "
            "several hundred, and the compute of its training comes on top.",
        ]


def _reaches(found: dict[str, np.ndarray], tuned: str, after: list[int], short: int, label: str) -> list[str]:
    """After how many meta-steps the rule's mean loss is at most that of tuned Adam after K."""
    notes = []
    for suffix in ("", ", other initial weights"):
        goal = found[tuned + suffix][:, after.index(short)].mean()
        there = np.flatnonzero(found[OURS + suffix].mean(axis=0) <= goal)
        first = f"after {after[there[0]]} meta-steps" if len(there) else "never"
        notes.append(
            f"Tuned Adam's mean loss after {short} meta-steps ({goal:.3g}) is reached {first} by the learned "
            f"rule{suffix}{label}."
        )
    return notes
