"""Trained models that come with the package, a folder each, with a card."""

from pathlib import Path

from metatower.core.errors import UserError

PACKAGE = Path(__file__).parents[1]
WEIGHTS, AGENTS = PACKAGE / "weights", PACKAGE / "agents"
"""Learners of pictures, and learners that act."""


def shipped(*kinds: Path) -> dict[str, Path]:
    """The folders of the models in `WEIGHTS`, in `AGENTS`, or in both, by name."""
    there = (path for kind in kinds if kind.is_dir() for path in sorted(kind.iterdir()))
    return {path.name: path for path in there if path.is_dir()}


def folder_of(given: Path) -> Path:
    """The folder that was given; where there is none of this name, that of the shipped model.

    Raises:
        UserError: neither.
    """
    models = shipped(WEIGHTS, AGENTS)
    if not given.is_dir() and str(given) not in models:
        raise UserError(
            f"There is no folder {given}, and no model of this name comes with the package ({', '.join(models)}). "
            "`metatower train` makes folders under runs/."
        )
    return given if given.is_dir() else models[str(given)]
