"""MAML on sinusoids: the regression experiment of its paper."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Constant, Descend, Learner, State, lift
from metatower.evaluation.conclusion import Conclusion, Curves, Functions, FunctionTask
from metatower.evaluation.episodes import adaptation_scores, episode_keys
from metatower.evaluation.statistics import interval
from metatower.learners import maml
from metatower.nets import MLP, Supervised, squared_error
from metatower.recipes.base import Recipe
from metatower.rules import adam, sgd
from metatower.tasks.functions import Sinusoids
from metatower.training.loop import train
from metatower.training.progress import Progress

CURVE_STEPS = 10
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
TUNING_TASKS = 200
STREAM = 2**31
"""How far the seed of the tasks that baselines are tuned on is from that of the tasks that they are judged on."""


@dataclass(frozen=True)
class MAMLSinusoid(Recipe):
    """MAML learns to fit a sine wave from ten points in one gradient step.

    The regression experiment of Finn, Abbeel & Levine 2017 (section 5.1): every task is a wave y = A sin(x - phase)
    with an amplitude between 0.1 and 5 and a phase between 0 and pi. A small network is shown a few points of a wave
    that it has never seen, takes one gradient step, and is judged on other points of the same wave. Storey 1 learns
    the initial weights from which that one step goes furthest. Beside it stands the same network trained on all waves
    at once and then fine-tuned at its best rate, which shows what learning to adapt adds to plain pretraining.
    """

    name: ClassVar[str] = "maml-sinusoid"

    steps: int = 70_000
    """Meta-training steps; the paper takes 70,000."""
    shots: int = 10
    """Points of each wave to adapt to; training judges on as many others."""
    batch: int = 25
    """Waves per meta-training step."""
    inner_rate: float = 0.01
    """Step size of the adaptation."""
    inner_steps: int = 1
    """Gradient steps of one adaptation, in training."""
    rate: float = 1e-3
    """Adam's step size for the initial weights."""
    hidden: tuple[int, ...] = (40, 40)
    """Units of the hidden layers."""
    episodes: int = 1000
    """Fresh waves to be judged on."""

    def check(self) -> None:
        super().check()
        self.at_least_one("shots", "batch", "inner_steps", "episodes")
        self.above_zero("inner_rate", "rate")

    def learner(self) -> Descend:
        return lift(maml(self._objective(), self.inner_rate, self.inner_steps), adam(self.rate), batch=self.batch)

    def data(self) -> Sinusoids:
        return Sinusoids(self.shots, self.shots)

    def artefact(self, learner: Any, state: State) -> Learner:
        return learner.result(state).learner

    def held_out(self) -> Sinusoids:
        # more points to be judged on than in training: the same mean, with less noise
        return Sinusoids(self.shots, 100)

    def conclude(self, artefact: Any, folder: Path, show: Progress) -> Conclusion:
        pretrained = self._pretrained(folder, show)
        learners = {
            "MAML": (artefact, (self.inner_rate,)),
            "pretrained on all waves": (pretrained, RATES),
            "untrained network": (maml(self._objective(), self.inner_rate), RATES),
        }
        conclusion, curves = Conclusion(notes=self._notes()), {}
        wanted = [self.inner_steps, *sorted({5, CURVE_STEPS} - {self.inner_steps}), 0]
        for name, (learner, rates) in learners.items():
            tuned = self._best_rates(learner, rates, show)
            scores = {rate: self._scores(learner, rate, 0, self.episodes, show, name) for rate in {*tuned}}
            for steps in wanted:
                rate = "" if len(rates) == 1 or steps == 0 else f" (rate {tuned[steps]:g})"
                row = f"{name}, {_after(steps)}{rate}"
                conclusion.add(row, {"loss": scores[tuned[steps]][:, steps]}, "task")
            curves[name] = interval(scores[tuned[CURVE_STEPS]])
        rows = list(conclusion.scores)
        for position in range(len(wanted) - 1):
            conclusion.compare(rows[position], *(rows[position + k * len(wanted)] for k in (1, 2)))
        conclusion.compare(rows[0], rows[len(wanted) - 1])
        conclusion.figures["adaptation"] = Curves(
            f"Loss on a fresh wave against gradient steps on {self.shots} of its points: means of {self.episodes} "
            "waves, with 95 % intervals. Baselines are shown at the rate that is best for them after "
            f"{CURVE_STEPS} steps.",
            "gradient steps on the task",
            "mean squared error",
            curves,
            log=True,
        )
        conclusion.figures["samples"] = self._samples(artefact, pretrained)
        return conclusion

    def _objective(self) -> Supervised:
        return Supervised(MLP((1, *self.hidden, 1), key=jax.random.key(self.seed)), squared_error)

    def _pretrained(self, folder: Path, show: Progress) -> Descend:
        """The same network trained on all waves at once: MAML's lift with no inner step, on as many points."""
        trainer = lift(maml(self._objective(), self.inner_rate, steps=0), adam(self.rate), batch=self.batch)
        state = train(
            trainer,
            Sinusoids(1, 2 * self.shots),
            steps=self.steps,
            seed=self.seed,
            folder=folder / "baselines" / "pretrained",
            config=self.options(),
            title="baseline: pretraining",
            show=show,
        )
        pretrained: Any = trainer.result(state)
        return pretrained.learner

    def _scores(
        self, learner: Descend, rate: float, stream: int, episodes: int, show: Progress, title: str
    ) -> np.ndarray:
        # the rate as an array: one compilation for all rates
        learner = dataclasses.replace(learner, rule=sgd(Constant(jnp.asarray(rate))), steps=1)
        found = adaptation_scores(
            learner,
            self.held_out(),
            episodes=episodes,
            seed=self.seed_for(stream * STREAM),
            steps=max(CURVE_STEPS, self.inner_steps),
            show=show,
            title=f"judging: {title}",
        )
        return found["loss"]

    def _best_rates(self, learner: Descend, rates: tuple[float, ...], show: Progress) -> list[float]:
        """The best rate for every number of steps, on waves of their own."""
        steps = max(CURVE_STEPS, self.inner_steps)
        if len(rates) == 1:
            return list(rates) * (steps + 1)
        losses = [
            self._scores(learner, rate, 1, TUNING_TASKS, show, "rates of a baseline").mean(axis=0) for rate in rates
        ]
        losses = np.where(np.isfinite(losses), losses, np.inf)
        return [rates[i] for i in np.argmin(losses, axis=0)]

    def _samples(self, artefact: Descend, pretrained: Descend) -> Functions:
        wave = Sinusoids(self.shots, 200)

        @eqx.filter_jit
        def sample(artefact, pretrained, key):
            key_task, key_adapt = jax.random.split(key)
            task = wave.sample(key_task)
            order = jnp.argsort(task.query.x[:, 0])
            x, truth = task.query.x[order], task.query.y[order]
            guesses = {
                "MAML before adaptation": artefact.objective.net(x),
                f"MAML {_after(self.inner_steps)}": artefact.result(artefact.adapt(task.support, key=key_adapt)).net(x),
                "pretrained": pretrained.objective.net(x),
            }
            lines = x, truth, task.support.x, task.support.y
            return [line[:, 0] for line in lines], {name: y[:, 0] for name, y in guesses.items()}

        drawn = [jax.device_get(sample(artefact, pretrained, key)) for key in episode_keys(self.seed, 0, 3)]
        tasks = tuple(FunctionTask(*lines, predictions=predictions) for lines, predictions in drawn)
        return Functions(f"Three fresh waves, and what the network makes of {self.shots} points of each.", tasks)

    def _notes(self) -> list[str]:
        hidden = ", ".join(map(str, self.hidden))
        return [
            f"{self.shots} points to adapt to, {self.shots} to be judged on in training; x from -5 to 5, amplitude 0.1 "
            f"to 5, phase 0 to pi; {self.batch} waves per step, {self.steps:,} steps; {self.inner_steps} inner step(s) "
            f"of gradient descent at {self.inner_rate:g} on the mean squared error; Adam at {self.rate:g}.",
            f"Network: hidden layers of {hidden} ReLU units, no normalisation; weights and biases start uniform within "
            "1/sqrt(inputs), where the paper starts weights from a truncated normal of width 0.01 and biases from 0.",
            f"Judged on {self.episodes:,} fresh waves with {self.shots} points to adapt to and 100 others.",
            "The pretrained baseline saw as many waves and points; the rates of baselines were chosen among "
            f"{', '.join(f'{rate:g}' for rate in RATES)}, for each number of steps by itself, on {TUNING_TASKS} other "
            "waves.",
        ]


def _after(steps: int) -> str:
    return "before adaptation" if steps == 0 else f"after {steps} step{'s' * (steps > 1)}"
