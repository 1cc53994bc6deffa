"""Learners by name, by folder, or as they are: what a person gives as `learner`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metatower.core import Learner
from metatower.core.errors import UserError
from metatower.learners.logistic import LogisticRegression
from metatower.learners.nearest import NearestNeighbour, flat
from metatower.learners.nearest_centroid import NearestCentroid
from metatower.recipes.run import load, recipe_of
from metatower.recipes.shipped import WEIGHTS, shipped

SHIPPED = {"prototypical": "prototypical-omniglot"}
"""Short names of some of them."""
PLAIN = {
    "nearest-centroid": lambda: NearestCentroid(flat),
    "nearest-neighbour": NearestNeighbour,
    "logistic-regression": lambda: LogisticRegression(flat),
}
"""Learners on the inputs themselves: what a trained one has to beat."""


@dataclass(frozen=True)
class Found:
    """A learner, and what is known of the pictures that it takes."""

    learner: Learner
    folder: Path | None = None
    """Where its weights are; None if it has none on disk."""
    size: int | None = None
    """Pixels along a side of its pictures; None: as they come."""
    ink: bool = False
    """Whether it was trained on bright strokes on dark ground."""


def learners() -> list[str]:
    """Every name that `find_learner` knows."""
    there = shipped(WEIGHTS)
    return [*(short for short, name in SHIPPED.items() if name in there), *there, *PLAIN]


def find_learner(given: Any) -> Found:
    """The learner of a name, of the folder of a run or model, or the one that was given.

    Raises:
        UserError: no such name or folder, or a model of another storey.
    """
    if isinstance(given, Learner):
        return Found(_of_tasks(given))
    if not isinstance(given, str | Path):
        raise UserError(f"Expected a learner as a name, a folder or a Learner, got {type(given).__name__}.")
    if str(given) in PLAIN:
        return Found(PLAIN[str(given)](), size=28, ink=True)
    folder = WEIGHTS / SHIPPED.get(str(given), str(given))
    if not folder.is_dir():
        folder = Path(given).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"There is no learner {str(given)!r}: neither a folder, nor one of {', '.join(learners())}. "
            "`metatower train` makes folders that can be given here."
        )
    recipe = recipe_of(folder)
    model = folder / "model" if (folder / "model").is_dir() else folder
    size = None if recipe.ink is None else getattr(recipe, "size", None)
    return Found(_of_tasks(load(folder)), model, size, bool(recipe.ink))


def _of_tasks(learner: Learner) -> Learner:
    if learner.height:
        raise UserError(
            f"This learner stands on storey {learner.height}: it learns from distributions of tasks, not from "
            "examples. Give one of storey 0."
        )
    return learner
