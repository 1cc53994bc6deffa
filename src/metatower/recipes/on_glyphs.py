"""What the recipes at storey 2 that work on families of pictures of letters share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from metatower.core import Objective, Selector, Tasks
from metatower.evaluation.conclusion import Images
from metatower.evaluation.episodes import Fixed, sampled
from metatower.nets import MLP, Supervised, cross_entropy
from metatower.recipes.base import Recipe
from metatower.tasks.episodes import blank
from metatower.tasks.glyph_families import glyph_family
from metatower.tasks.glyphs import fingerprint

WAYS = 5
"""Classes per task."""


@dataclass(frozen=True)
class OnGlyphs(Recipe):
    """A small network on families of pictures of letters."""

    ink: ClassVar[bool | None] = True

    shots: int = 1
    """Pictures per class to adapt to."""
    queries: int = 3
    """Pictures per class to be judged on."""
    size: int = 14
    """Pixels along a side."""
    classes: tuple[str, ...] = ("character", "rotation", "size", "ink", "x", "background")
    """What a distribution may make the class; see `metatower.tasks.glyph_families.CLASSES`."""
    nuisance: float = 1.0
    """How much everything varies that is not the class; 1 is the usual."""
    hidden: tuple[int, ...] = (40, 40)
    """Units of the hidden layers."""
    fonts: Path | None = None
    """A folder of further fonts (.ttf, .otf) to draw letters from."""

    def check(self) -> None:
        super().check()
        self.check_pixels(self.size)

    @property
    def metric(self) -> str:
        return "accuracy"

    @property
    def adapted(self) -> Selector:
        return above_the_first

    def objective(self, seed: int) -> Objective:
        sizes = (self.size**2, *self.hidden, WAYS)
        return Supervised(MLP(sizes, key=jax.random.key(seed)), cross_entropy)

    @cached_property
    def _families(self) -> dict[str, Tasks]:
        return {}

    def family(self, split: str) -> Tasks:
        # read and checked once: a search asks for it hundreds of times, and would wait for it half of its time
        if split not in self._families:
            self._families[split] = self._family(split)
        return self._families[split]

    def _family(self, split: str) -> Tasks:
        return glyph_family(
            split,
            classes=self.classes,
            nuisance=self.nuisance,
            ways=WAYS,
            shots=self.shots,
            queries=self.queries,
            size=self.size,
            fonts=self.fonts,
        )

    def fingerprint(self) -> str:
        return fingerprint(self.fonts)

    def shaped(self) -> Tasks:
        empty = blank(WAYS, self.shots, self.queries, self.size)
        return Fixed(empty, empty)

    def figure_of(self, tasks: Tasks, answers: Callable[[Any, Any], Array], caption: str) -> Images:
        """One task with what a learner says of its queries.

        Args:
            answers: the logits for a task, from the task and a key.
        """
        key = jax.random.key(self.seed)
        task = sampled(tasks, key)
        guess = eqx.filter_jit(answers)(task, key).argmax(axis=-1)
        shown = (task.support.x, task.support.y, task.query.x, task.query.y, guess)
        return Images(caption, *(np.asarray(each) for each in shown))


def above_the_first(objective: Any) -> list:
    """All layers but the first: it sees pixels the same way in every task, which makes a task much cheaper.

    A function of the module and not a lambda, since programs are compiled anew for every new selector.
    """
    return objective.net.layers[1:]
