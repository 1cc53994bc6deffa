"""A person's pictures, of any size and mode, as a model takes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageOps

from metatower.core.errors import UserError
from metatower.tasks.arrays import as_bytes, read_picture, squeezed


def prepared(pictures: Any, size: int | None, *, ink: bool) -> Float32[np.ndarray, "n height width *colour"]:
    """The pictures as numbers from 0 to 1, squeezed to one size.

    Args:
        pictures: an array `[n, h, w]` or `[n, h, w, colours]` (uint8, Boolean, or floats from 0 to 1), or a sequence
            of files, Pillow images and such arrays of one picture each, of any size and mode.
        size: pixels along a side, in shades of grey; None to take an array as it is.
        ink: whether strokes are to be bright and the ground dark. What has a bright border is turned round, and
            shades are stretched to the full range.

    Raises:
        UserError: no pictures, a damaged one, other numbers than these, or pictures of different sizes without `size`.
    """
    if size is None:
        found = np.asarray(pictures)
        if found.ndim not in (3, 4) or not len(found):
            raise UserError(
                "This learner does not say what size its pictures have: give it an array [n, h, w] or "
                f"[n, h, w, colours]; got shape {found.shape}."
            )
        return as_bytes(found).astype(np.float32) / 255
    if isinstance(pictures, str | Path):
        raise UserError(f"Expected a sequence of pictures, got one path: {pictures}. Put it in a list.")
    if not len(pictures):
        raise UserError("Expected at least one picture, got none.")
    return np.stack([_one(picture, size, ink) for picture in pictures]).astype(np.float32) / 255


def is_vectors(inputs: Any) -> bool:
    """Whether these are vectors of numbers, one per example, and no pictures or names of files."""
    shape = getattr(inputs, "shape", None)
    if shape is not None and len(shape) != 1:
        return len(shape) < 3
    if isinstance(inputs, str | Path):
        return False
    if not (isinstance(inputs, Sequence) or shape) or not len(inputs):
        return True
    first = next(iter(inputs))
    return not (isinstance(first, str | Path | Image.Image) or np.ndim(first) >= 2)


def _one(picture: Any, size: int, ink: bool) -> np.ndarray:
    grey = read_picture(Path(picture), size, True) if isinstance(picture, str | Path) else _squeezed(picture, size)
    if not ink:
        return grey
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    dark = 255 - grey if np.median(border) > 127 else grey
    return np.asarray(ImageOps.autocontrast(Image.fromarray(dark)))


def _squeezed(picture: Any, size: int) -> np.ndarray:
    if not isinstance(picture, Image.Image):
        array = np.asarray(picture)
        if array.ndim == 3 and array.shape[-1] == 1:
            array = array[..., 0]
        if array.ndim != 2 and not (array.ndim == 3 and array.shape[-1] in (3, 4)):
            raise UserError(f"Expected a picture [h, w] or [h, w, colours], got shape {array.shape}.")
        picture = Image.fromarray(as_bytes(array))
    return squeezed(picture, size, grey=True)
