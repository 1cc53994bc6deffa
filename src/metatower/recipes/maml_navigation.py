"""MAML on 2D navigation: a policy that a few policy-gradient steps turn towards a hidden goal."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Descend, Learner, Positive, State, lift, value
from metatower.core.errors import UserError
from metatower.envs.navigation import Navigation
from metatower.envs.references.navigation import oracle_action, oracle_return, stay_action, stay_return
from metatower.envs.trial import Worlds
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.episodes import adaptation_scores, scores_after
from metatower.evaluation.statistics import interval
from metatower.gradients import FirstOrder, Unrolled
from metatower.learners import ProMP, maml_rl
from metatower.learners.informed import Oracle
from metatower.recipes.base import IN_WORLDS, Recipe
from metatower.rules import adam, anneal, clip, per_step, rates_for, sgd
from metatower.rules.common import PerLeaf
from metatower.training.progress import Progress

STAYS, KNOWS = "stays where it is", "knows the goal"
REFERENCES = {STAYS: stay_action, KNOWS: oracle_action}
"""Policies to compare with, in the same worlds."""
CLIP = 10.0
"""Global norm that the meta-gradient is scaled down to."""


@dataclass(frozen=True)
class MAMLNavigation(Recipe):
    """MAML learns to walk to a hidden goal after a few policy-gradient steps.

    The 2D navigation of Finn, Abbeel & Levine 2017 (section 5.3): a point in the plane, a goal that it does not see,
    minus the distance to it as reward, 100 steps. An adaptation plays 20 episodes and takes one gradient step; storey 1
    learns the policy from which that one step goes furthest, and the rates of the step. Who cannot adapt does best to
    stay where it is; that value and the oracle's are known exactly.
    """

    name: ClassVar[str] = "maml-navigation"
    judges_itself: ClassVar[bool] = True
    use: ClassVar[str] = IN_WORLDS

    steps: int = 300
    batch: int = 20
    """Worlds per meta-training step."""
    trajectories: int = 20
    """Episodes of one inner step, and of one judgement."""
    inner_rate: float = 1e-2
    """Step size of the adaptation to begin with, one per leaf, learned."""
    inner_steps: int = 1
    """Gradient steps of one adaptation, in training."""
    rate: float = 1.5e-3
    """Adam's step size; it falls to zero in the second half of the training."""
    discount: float = 0.99
    """Of later rewards; returns are reported without."""
    credit: float = 0.5
    """Of earlier actions in second derivatives: 1 is unbiased, less is less noisy."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of the hidden layers."""
    scale: float = 0.04
    """Standard deviation of the actions to begin with; the largest move is 0.1."""
    first_order: bool = False
    """Whether to leave out second derivatives."""
    outer: Literal["gradient", "proximal"] = "gradient"
    """How storey 1 learns: one step along the meta-gradient per batch, or several proximal ones (ProMP)."""
    epochs: int = 5
    """Proximal steps per batch."""
    later: float = 0.3
    """Factor of the inner rates from step to step, beyond the steps of training; they would overshoot."""
    adapted: int = 3
    """Steps of adaptation up to which it is judged."""
    judged: int = 1000
    """Fresh worlds to be judged on."""

    def check(self) -> None:
        super().check()
        self.at_least_one("batch", "inner_steps", "adapted", "epochs")
        self.above_zero("rate", "inner_rate", "scale", "later")
        self.from_zero_to_one("discount", "credit")
        self.two_to_judge_on(self.judged, "worlds")
        if self.first_order and self.outer == "proximal":
            raise UserError(f"{self.name}: --outer proximal has second derivatives: it has no --first-order.")

    def learner(self) -> Descend | ProMP:
        moves = self.steps * (self.epochs if self.outer == "proximal" else 1)
        rule = anneal(clip(adam(self.rate), CLIP), begin=moves // 2, end=max(1, moves))
        if self.outer == "proximal":
            return ProMP(self._inner(), rule, batch=self.batch, epochs=self.epochs)
        gradient = FirstOrder() if self.first_order else Unrolled()
        return lift(self._inner(), rule, batch=self.batch, gradient=gradient)

    def _inner(self) -> Descend:
        learner = maml_rl(
            Navigation(),
            key=jax.random.key(self.seed),
            steps=self.inner_steps,
            hidden=self.hidden,
            scale=self.scale,
            trajectories=self.trajectories,
            discount=self.discount,
            credit=self.credit,
            standard=True,
        )
        rates = rates_for(learner.objective, self.inner_rate)
        return Descend(learner.objective, sgd(rates), self.inner_steps)

    def data(self) -> Worlds:
        return Worlds(Navigation())

    def artefact(self, learner: Any, state: State) -> Learner:
        return learner.result(state).learner

    def held_out(self) -> Worlds:
        return self.data()

    def conclude(self, artefact: Any, folder: Path, show: Progress) -> Conclusion:
        del folder
        return self.judge_fresh(artefact, episodes=None, seed=self.seed, show=show)

    def judge_fresh(self, artefact: Any, *, episodes: int | None, seed: int, show: Progress) -> Conclusion:
        judged = dataclasses.replace(self, judged=episodes or self.judged).judged  # refused if it cannot be
        conclusion, curves = Conclusion(notes=self._notes()), {}
        how: dict[str, Any] = {"episodes": judged, "seed": seed, "chunk": 50, "show": show}
        for name, learner in {"MAML": artefact, "untrained": self._inner()}.items():
            scores = adaptation_scores(
                self._further(learner), self.held_out(), steps=self.adapted, title=f"judging: {name}", **how
            )["return"]
            curves[name] = interval(scores)
            for steps in range(self.adapted + 1):
                conclusion.add(f"{name}, {_after(steps)}", {"return": scores[:, steps]}, "world")
        for name, policy in REFERENCES.items():
            agent = Oracle(2, policy)
            scores = scores_after(agent, self.held_out(), (0,), title=f"judging: {name}", **how)["return"]
            conclusion.add(name, {"return": scores[:, 0]}, "world")
        conclusion.compare(f"MAML, {_after(1)}", f"MAML, {_after(0)}", f"untrained, {_after(1)}", STAYS)
        conclusion.compare(f"MAML, {_after(self.adapted)}", KNOWS)
        conclusion.figures["adaptation"] = Curves(
            f"Return in a fresh world against gradient steps of {self.trajectories} episodes each: means of "
            f"{judged:,} worlds with 95 % intervals.",
            "gradient steps on the world",
            "return",
            curves,
            np.arange(self.adapted + 1),
        )
        return conclusion

    def _further(self, learner: Any) -> Descend:
        """The learner with rates for steps beyond those of training."""
        beyond = np.maximum(np.arange(self.adapted) - self.inner_steps + 1, 0)
        rates = value(learner.rule.rate.numbers) * self.later ** jnp.asarray(beyond, jnp.float32)[:, None]
        return dataclasses.replace(learner, rule=per_step(sgd(PerLeaf(Positive(rates)))))

    def _notes(self) -> list[str]:
        order = "first-order" if self.first_order else f"second-order (loaded DiCE, credit {self.credit:g})"
        if self.outer == "proximal":
            order = f"ProMP, {self.epochs} proximal steps per batch"
        return [
            f"Exact: who stays gains {stay_return(Navigation()):.2f}, hardly less than the most without adapting; who "
            f"knows the goal {oracle_return(Navigation()):.2f}.",
            f"{self.steps:,} meta-steps of {self.batch} worlds, {self.trajectories} episodes to adapt to and as "
            f"many to be judged on; {self.inner_steps} inner step(s) from {self.inner_rate:g}, one learned per leaf, "
            f"and {self.later:g} times that from step to step beyond; "
            f"linear baseline; advantages in units of their standard deviation; {order}; Adam from {self.rate:g}; "
            f"trained with seed {self.seed}.",
        ]


def _after(steps: int) -> str:
    return "before adaptation" if steps == 0 else f"after {steps} step{'s' * (steps > 1)}"
