"""MAML on letters of many scripts: few-shot classification of pictures, at storey 1."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np

from metatower.core import Descend, Learner, State, Tasks, lift, value
from metatower.evaluation.conclusion import Conclusion, Curves, Images, Rates
from metatower.evaluation.episodes import adaptation_scores, episode_keys, evaluate
from metatower.evaluation.statistics import interval
from metatower.learners.nearest import NearestNeighbour
from metatower.nets import MLP, Supervised, cross_entropy
from metatower.recipes.base import Recipe
from metatower.rules import adam, clip, per_step, rates_for, sgd
from metatower.tasks.episodes import blank
from metatower.tasks.glyphs import fingerprint, glyph_tasks
from metatower.training.progress import Progress

CURVE_STEPS = 10


@dataclass(frozen=True)
class MAMLGlyphs(Recipe):
    """MAML learns to tell five letters apart from one picture of each.

    Letters of seven scripts, each drawn by several fonts, to learn from; Arabic, Armenian, Georgian and Hebrew to be
    judged on. Storey 1 learns the initial weights and a rate per layer and inner step (LSLR, Antoniou et al. 2019).
    """

    name: ClassVar[str] = "maml-glyphs"
    ink: ClassVar[bool | None] = True

    steps: int = 4000
    """Meta-training steps."""
    ways: int = 5
    """Classes per task."""
    shots: int = 1
    """Pictures per class to adapt to."""
    queries: int = 3
    """Pictures per class to be judged on; many letters have four drawings in all."""
    size: int = 20
    """Pixels along a side."""
    hidden: tuple[int, ...] = (128, 64)
    """Units of the hidden layers."""
    batch: int = 16
    """Tasks per meta-step."""
    inner_steps: int = 3
    """Gradient steps on one task."""
    inner_rate: float = 0.1
    """Where all inner rates start."""
    rate: float = 1e-3
    """Adam's step size for the initial weights."""
    episodes: int = 1000
    """Held-out tasks to be judged on."""
    fonts: Path | None = None
    """A folder of further fonts (.ttf, .otf) to draw letters from."""

    def check(self) -> None:
        super().check()
        self.at_least_one("ways", "shots", "queries", "batch", "inner_steps", "episodes")
        self.check_pixels(self.size)
        self.above_zero("inner_rate", "rate")

    def learner(self) -> Descend:
        rates = rates_for(self._objective(), self.inner_rate, steps=self.inner_steps)
        maml = Descend(self._objective(), clip(per_step(sgd(rates)), 10.0), steps=self.inner_steps)
        return lift(maml, clip(adam(self.rate), 10.0), batch=self.batch)

    def data(self) -> Tasks:
        return self._tasks("train")

    def fingerprint(self) -> str:
        return fingerprint(self.fonts)

    def shaped(self) -> Tasks:
        return blank(self.ways, self.shots, self.queries, self.size)

    def artefact(self, learner: Descend, state: State) -> Learner:
        return learner.result(state).learner

    def held_out(self) -> Tasks:
        return self._tasks("test")

    def conclude(self, artefact: Descend, folder: Path, show: Progress) -> Conclusion:
        untrained = self.learner().objective.learner
        contestants = {
            "MAML": artefact,
            "MAML before adaptation": dataclasses.replace(artefact, steps=0),
            "untrained network, same rates": dataclasses.replace(artefact, objective=untrained.objective),
            "nearest neighbour on pixels": NearestNeighbour(),
        }
        conclusion = Conclusion(
            notes=[
                f"{self.ways} ways, {self.shots} shot(s), {self.queries} queries per class, {self.size} x {self.size} "
                f"pixels; {self.batch} tasks per step, {self.steps:,} steps of Adam at {self.rate:g}, second order; "
                f"{self.inner_steps} inner steps at learned rates. Seed {self.seed}.",
                "Scripts of training and test share no letter; nothing was chosen by looking at the test scripts.",
            ]
        )
        for name, learner in contestants.items():
            scores = evaluate(
                learner, self.held_out(), episodes=self.episodes, seed=self.seed, show=show, title=f"judging: {name}"
            )
            conclusion.add(name, scores, "task")
        conclusion.compare("MAML", *(name for name in contestants if name != "MAML"))
        curves = adaptation_scores(
            artefact,
            self.held_out(),
            episodes=self.episodes,
            seed=self.seed,
            steps=CURVE_STEPS,
            show=show,
            title="adaptation curve",
        )
        conclusion.figures["adaptation"] = Curves(
            f"Accuracy on held-out scripts against gradient steps on the task: means of {self.episodes:,} tasks with "
            f"95 % intervals. Trained for {self.inner_steps} steps.",
            "gradient steps on the task",
            "accuracy",
            {"MAML": interval(curves["accuracy"])},
        )
        table = np.asarray(value(artefact.rule.rule.rule.rate.numbers)).T
        leaves = tuple(f"layer {i} {kind}" for i in range(len(self.hidden) + 1) for kind in ("weight", "bias"))
        conclusion.figures["inner_rates"] = Rates(
            "Learned inner rates per layer and step.", leaves, table, self.inner_rate
        )
        conclusion.figures["samples"] = self._sample(artefact)
        return conclusion

    def _tasks(self, split: str) -> Tasks:
        return glyph_tasks(
            split, ways=self.ways, shots=self.shots, queries=self.queries, size=self.size, fonts=self.fonts
        )

    def _objective(self) -> Supervised:
        sizes = (self.size**2, *self.hidden, self.ways)
        return Supervised(MLP(sizes, key=jax.random.key(self.seed)), cross_entropy)

    def _sample(self, artefact: Descend) -> Images:
        key_task, key_adapt = jax.random.split(episode_keys(self.seed, 0, 1)[0])
        task = self.held_out().sample(key_task)
        net = artefact.result(artefact.adapt(task.support, key=key_adapt)).net
        shown = (task.support.x, task.support.y, task.query.x, task.query.y, net(task.query.x).argmax(axis=-1))
        return Images("One held-out task, and what MAML says of its queries.", *(np.asarray(each) for each in shown))
