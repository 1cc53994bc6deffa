"""The picture sheet of `metatower adapt`: what was learned from, and what was said of the rest."""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

CELL, PICTURE, LABEL, LINE = 92, 84, 150, 14
"""Pixels: from picture to picture, along a picture's side, of the class names' column, from line to line."""
COLUMNS, ROWS = 10, 100
"""Pictures beside each other at most, and classes below each other: longer sheets are not looked at."""
INK, DOUBT = "black", "firebrick"


def sheet(
    examples: Sequence[tuple[str, Float[np.ndarray, "_ side side"]]],
    named: Sequence[tuple[Float[np.ndarray, "side side"], str, str, bool]],
) -> bytes:
    """A PNG with the examples of each class, a row each, and below them what was named.

    Args:
        examples: the name of each class, and pictures of it, from 0 to 1.
        named: pictures with what they were called, how surely, and whether that is doubtful.
    """
    # drawn by Pillow: thousands of axes would take matplotlib minutes
    shown = examples[:ROWS]
    below = -(-len(named) // COLUMNS)
    top = 2 * LINE + len(shown) * CELL + 2 * LINE
    page = Image.new("RGB", (LABEL + COLUMNS * CELL, top + below * (CELL + 2 * LINE)), "white")
    pen = ImageDraw.Draw(page)
    more = f" (the first {ROWS} of {len(examples)} classes)" if len(examples) > ROWS else ""
    _write(pen, (LINE // 2, LINE // 2), f"Learned from{more}:", page.width, "la")
    for row, (name, pictures) in enumerate(shown):
        y = 2 * LINE + row * CELL
        _write(pen, (LABEL - LINE // 2, y + PICTURE // 2), name, LABEL - LINE, "rm")
        for column, picture in enumerate(pictures[:COLUMNS]):
            page.paste(_image(picture), (LABEL + column * CELL, y))
    _write(pen, (LINE // 2, top - 2 * LINE + LINE // 2), "Named, the doubtful first and in red:", page.width, "la")
    for place, (picture, name, sureness, doubtful) in enumerate(named):
        x, y = LABEL + place % COLUMNS * CELL, top + place // COLUMNS * (CELL + 2 * LINE)
        colour = DOUBT if doubtful else INK
        page.paste(_image(picture), (x, y + 2 * LINE))
        _write(pen, (x + PICTURE // 2, y), name, PICTURE, "ma", colour)
        _write(pen, (x + PICTURE // 2, y + LINE), sureness, PICTURE, "ma", colour)
    content = io.BytesIO()
    page.save(content, format="png")
    return content.getvalue()


def _image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(np.uint8(np.rint(picture * 255))).resize((PICTURE, PICTURE), Image.Resampling.NEAREST)


def _write(pen: Any, at: tuple[int, int], text: str, room: int, anchor: str, colour: str = INK) -> None:
    """One line of text, cut to the room that there is; letters that the font lacks become boxes."""
    font, text = _font(), " ".join(text.split())
    if font.getlength(text) > room:
        while text and font.getlength(f"{text}…") > room:
            text = text[:-1]
        text += "…"
    pen.text(at, text, fill=colour, font=font, anchor=anchor)


@cache
def _font() -> Any:
    import matplotlib

    # of more scripts than Pillow's own
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 11)
