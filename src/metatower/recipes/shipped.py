"""Trained models that come with the package, a folder each, with a card."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
KINDS = ("weights", "agents")
"""Learners of pictures, and learners that act."""


def shipped() -> dict[str, Path]:
    """Their folders, by name."""
    folders = (PACKAGE / kind for kind in KINDS)
    return {
        path.name: path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()) if path.is_dir()
    }


def folder_of(given: Path) -> Path:
    """The folder that was given; where there is none of this name, that of the shipped model."""
    return given if given.exists() else shipped().get(str(given), given)
