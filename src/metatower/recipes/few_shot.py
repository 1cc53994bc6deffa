"""What the few-shot recipes share: the tasks, the network, and how the trained learner is judged."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax

from metatower.core import Descend, Learner, State, Tasks
from metatower.evaluation.conclusion import Conclusion
from metatower.evaluation.episodes import evaluate
from metatower.evaluation.norms import in_every_mode, measured
from metatower.learners.nearest import NearestNeighbour
from metatower.nets.conv import ConvNet
from metatower.nets.norm import Mode, norms, with_norm, with_running
from metatower.recipes.base import Recipe
from metatower.tasks.episodes import Episodes, blank
from metatower.tasks.glyphs import fingerprint, glyph_tasks
from metatower.tasks.omniglot import omniglot
from metatower.training.progress import Progress

CLIP = 10.0
"""Global norm that the gradients of the top storey are scaled down to."""
MEASURED_ON = 100
"""Training tasks on which the statistics of the norms are measured."""


@dataclass(frozen=True)
class FewShot(Recipe):
    """What the recipes of few-shot classification share; a subclass gives the learner and how it is trained.

    A task: a few classes of pictures that training has not seen, a few pictures of each to learn from, more to be
    judged on.
    """

    ink: ClassVar[bool | None] = True

    on: Literal["omniglot", "omniglot-alphabets", "glyphs"] = "omniglot"
    """Pictures: Omniglot by the split of Vinyals et al., with quarter turns as classes; Omniglot upright, tested on
    alphabets that no training has seen; letters drawn by fonts, tested on scripts that no training has seen."""
    ways: int = 5
    """Classes per task when judged."""
    shots: int = 1
    """Pictures of each class to learn from, in training and when judged."""
    queries: int = 15
    """Pictures of each class to be judged on; of the letters of fonts there are few, so take 3."""
    train_ways: int = 5
    """Classes per task in training."""
    train_queries: int = 5
    """Pictures of each class to be judged on in training."""
    batch: int = 2
    """Tasks per training step."""
    rate: float = 1e-3
    """Adam's step size; it falls to zero in the second half of the training."""
    channels: tuple[int, ...] = (64, 64, 64, 64)
    """Channels of each block of the network."""
    stride: int = 1
    """1: blocks halve the picture by pooling. 2: by their strides, which is faster."""
    size: int = 28
    """Pixels along a side."""
    episodes: int = 1000
    """Held-out tasks to be judged on."""

    def check(self) -> None:
        super().check()
        counts = ("ways", "shots", "queries", "train_ways", "train_queries", "batch", "episodes", "stride")
        self.at_least_one(*counts)
        self.check_pixels(self.size)
        self.above_zero("rate")

    @abstractmethod
    def learner(self) -> Descend:
        """The trainer, storey 1, of a learner of tasks."""

    @property
    @abstractmethod
    def judged_norm(self) -> Mode:
        """The mode of the norms in which the learner is kept and judged."""

    @abstractmethod
    def about_training(self) -> str:
        """How it was trained, for the notes."""

    def net(self, outputs: int | None, **options: Any) -> ConvNet:
        """The network, with fresh weights; `options` of `ConvNet` beside those that every recipe has."""
        key, image = jax.random.key(self.seed), (self.size, self.size, 1)
        return ConvNet(outputs, key=key, image=image, channels=self.channels, stride=self.stride, **options)

    def data(self) -> Tasks:
        return self.tasks("train", self.train_ways, self.train_queries, self.shots)

    def held_out(self) -> Tasks:
        return self.tasks("test", self.ways, self.queries, self.shots)

    def fingerprint(self) -> str | None:
        return fingerprint() if self.on == "glyphs" else None

    def shaped(self) -> Tasks:
        return blank(self.ways, self.shots, self.queries, self.size)

    def artefact(self, learner: Descend, state: State) -> Learner:
        return self._in_mode(learner.result(state).learner)

    def finish(self, artefact: Learner, show: Progress) -> Learner:
        """With the statistics of the training tasks, where the norms are to use them."""
        if self.judged_norm != "running" or not norms(artefact):
            return artefact
        show.note(f"measuring the norms' statistics on {MEASURED_ON} training tasks")
        return measured(with_norm(artefact, "transductive"), self.data(), episodes=MEASURED_ON, seed=self.seed_for(1))

    def conclude(self, artefact: Learner, folder: Path, show: Progress) -> Conclusion:
        del folder
        mine, untrained = type(self).name, self.learner().objective.learner
        contestants: dict[str, Learner] = {mine: artefact}
        modes = in_every_mode(artefact, training=self.data(), episodes=MEASURED_ON, seed=self.seed_for(1))
        contestants |= {f"{mine}, norms {mode}": each for mode, each in modes.items() if mode != self.judged_norm}
        contestants["the same, untrained"] = self.finish(self._in_mode(untrained), show)
        contestants["nearest neighbour on pixels"] = NearestNeighbour()
        conclusion = Conclusion(
            notes=[
                f"{self.on}, {self.ways} ways, {self.shots} shot(s), {self.queries} queries per class, {self.size} x "
                f"{self.size} pixels. Norms in the mode {self.judged_norm!r}. Seed {self.seed}.",
                self.about_training(),
                "No class of the test split was looked at in training, or to choose anything.",
            ]
        )
        for name, learner in contestants.items():
            how: dict[str, Any] = {"episodes": self.episodes, "seed": self.seed, "show": show}
            conclusion.add(name, evaluate(learner, self.held_out(), title=f"judging: {name}", **how), "task")
        conclusion.compare(mine, *(name for name in contestants if name != mine))
        return conclusion

    def _in_mode(self, learner: Learner) -> Learner:
        """The learner with its norms as they are kept; statistics of its own come in `finish`."""
        return with_running(learner) if self.judged_norm == "running" else with_norm(learner, self.judged_norm)

    def tasks(self, split: str, ways: int, queries: int, shots: int) -> Episodes:
        """Tasks of a split, of this layout."""
        layout: dict[str, Any] = {"ways": ways, "shots": shots, "queries": queries}
        if self.on == "glyphs":
            return glyph_tasks(split, size=self.size, **layout)
        scheme = "vinyals" if self.on == "omniglot" else "alphabets"
        return omniglot(split, scheme, rotations=self.on == "omniglot", size=self.size, **layout)
