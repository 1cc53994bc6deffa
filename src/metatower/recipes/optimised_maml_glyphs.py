"""The main job: the loop on families of pictures of letters."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from metatower.core import Descend, Objective, Selector, Tasks
from metatower.evaluation.conclusion import Images
from metatower.evaluation.episodes import Fixed
from metatower.nets import MLP, Supervised, cross_entropy
from metatower.recipes.optimised_maml import OptimisedMAML
from metatower.tasks.episodes import blank
from metatower.tasks.glyph_families import glyph_family
from metatower.tasks.glyphs import fingerprint

WAYS = 5
"""Classes per task."""


@dataclass(frozen=True)
class OptimisedMAMLGlyphs(OptimisedMAML):
    """A meta-meta-learner improves MAML on real pictures of letters. The main job.

    In one distribution the five classes of a task are five letters; in another five angles, whatever the letters; in
    a third five sizes, places or shades. One picture per class cannot tell which it is, but a few meta-steps on the
    distribution can. Storey 2 trains MAML's initial weights, its inner rate per layer and step and its outer rate
    per leaf and meta-step, by what they do to fresh runs of MAML. It is judged on distributions of scripts that no
    training run has seen, in which at least one of angle, size, place, shade … varies around a centre outside the
    training range.
    """

    name: ClassVar[str] = "optimised-maml"
    may_be_zero: ClassVar[tuple[str, ...]] = ("outer_decay", "decay_rate", "nuisance", "run_clip")

    steps: int = 200
    meta_batch: int = 4
    distributions: int = 16
    outer_rate: float = 0.06
    weight_rate: float = 4e-4
    rate_rate: float = 4e-2
    run_clip: float = 1.0
    searched: int = 242
    pooled_steps: int = 15_000
    pooled_extra: int = 30_800
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

    def sample_of(self, maml: Descend, tasks: Tasks) -> Images:
        key = jax.random.key(self.seed)
        task = tasks.sample(key)
        guess = maml.result(maml.adapt(task.support, key=key)).net(task.query.x).argmax(axis=-1)
        shown = (task.support.x, task.support.y, task.query.x, task.query.y, guess)
        return Images(
            "One task of a held-out distribution, and what the optimised MAML says of its queries.",
            *(np.asarray(each) for each in shown),
        )


def above_the_first(objective: Any) -> list:
    """All layers but the first: it sees pixels the same way in every task, which makes a task much cheaper.

    A function of the module and not a lambda, since programs are compiled anew for every new selector.
    """
    return objective.net.layers[1:]
