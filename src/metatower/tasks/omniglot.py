"""Omniglot: 1,623 handwritten characters of 50 alphabets, drawn 20 times each (Lake, Salakhutdinov, Tenenbaum 2015).

Licence of the images: MIT, github.com/brendenlake/omniglot. They are fetched from there once, or read from the folder
that `METATOWER_DATA` names: `omniglot.npz`, or the two official zip files.
"""

import hashlib
import io
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pooch
from PIL import Image, ImageOps

from metatower.core.errors import UserError
from metatower.tasks.arrays import resized
from metatower.tasks.cache import Arrays, cache_folder, cached
from metatower.tasks.episodes import Episodes
from metatower.tasks.glyph_families import GlyphFamily, check_split

SIZE = 28
DRAWINGS = 20
"""Of every character."""
SOURCE = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
ZIPS = {
    "images_background.zip": "md5:68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "md5:6b91aef0f799c5bb55b94e3f2daec811",
}
VALIDATION_ALPHABETS = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
"""Of the background set; the validation characters of both schemes."""
SCHEMES = ("vinyals", "alphabets")


@dataclass(frozen=True)
class Omniglot:
    """The characters, ordered by alphabet and number.

    Args:
        images: uint8 `[characters, 20, 28, 28]`, ink is 255.
        alphabet: index into `names` of each character, `[characters]`.
        number: of each character within its alphabet, from 1.
        background: whether a character is of the official background set, `[characters]`.
        names: of the alphabets.
    """

    images: np.ndarray
    alphabet: np.ndarray
    number: np.ndarray
    background: np.ndarray
    names: tuple[str, ...]

    def members(self, split: str, scheme: str) -> np.ndarray:
        """Which characters belong to a split, Boolean `[characters]`.

        "vinyals" is the split of the papers on Matching and Prototypical Networks: 1,028 characters to train, 172 to
        validate, 423 to test. "alphabets" tests on the official evaluation set, 20 alphabets none of whose characters
        are trained on; 25 of the background alphabets train. Both validate on `VALIDATION_ALPHABETS`.
        """
        check_split(split)
        if scheme not in SCHEMES:
            raise UserError(f"Expected a scheme of {', '.join(SCHEMES)}; got {scheme!r}.")
        alphabet = np.array(self.names)[self.alphabet]
        validation = np.isin(alphabet, VALIDATION_ALPHABETS)
        test = ~self.background
        if scheme == "vinyals":
            # the end of the evaluation set in alphabetical order, from the 42nd character of Gurmukhi
            test &= (alphabet > "Gurmukhi") | ((alphabet == "Gurmukhi") & (self.number >= 42))
        return {"train": ~validation & ~test, "validation": validation, "test": test}[split]


def omniglot(
    split: str = "train",
    scheme: str = "vinyals",
    *,
    rotations: bool = True,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    size: int = SIZE,
) -> Episodes:
    """N-way K-shot tasks from Omniglot.

    Args:
        split: "train", "validation" or "test".
        scheme: "vinyals" or "alphabets", see `Omniglot.members`.
        rotations: quarter turns of a character are classes of their own, as in most papers.
        ways, shots, queries: see `Episodes`; there are 20 drawings of a character.
        size: pixels along a side.

    Raises:
        UserError: the images are not there and cannot be fetched, or ways, shots or queries are too many.
    """
    data = read_omniglot()
    images = data.images[data.members(split, scheme)]
    count = np.full(len(images), images.shape[1], np.int32)
    return Episodes(resized(images, size), count, ways, shots, queries, rotations)


def alphabet_family(split: str = "train", **options: Any) -> GlyphFamily:
    """Alphabets times transforms, for storey 2: a member is one alphabet of Omniglot in one fixed transform.

    Args: as in `metatower.tasks.glyph_families.glyph_family`; splits are those of the "alphabets" scheme.
    """
    data = read_omniglot()
    keep = data.members(split, "alphabets")
    settings: dict[str, Any] = {"classes": ("character",), "nuisance": 0.0, **options}
    count = np.full(int(keep.sum()), data.images.shape[1])
    return GlyphFamily(data.images[keep], count, data.alphabet[keep], split=split, **settings)


def has_omniglot() -> bool:
    """Whether the images are in the folder that `METATOWER_DATA` names, so that nothing need be fetched."""
    folder = Path(os.environ.get("METATOWER_DATA") or os.devnull)
    return (folder / "omniglot.npz").is_file() or all((folder / name).is_file() for name in ZIPS)


def read_omniglot() -> Omniglot:
    """All of Omniglot, from `METATOWER_DATA`, else fetched, checked against its published sums, and cached.

    Raises:
        UserError: it cannot be fetched, or a file is damaged.
    """
    folder = os.environ.get("METATOWER_DATA")
    if folder and not Path(folder).is_dir():
        raise UserError(f"METATOWER_DATA is {folder}, which is not a folder. Name one with omniglot.npz, or unset it.")
    ready = Path(folder) / "omniglot.npz" if folder else None
    if ready is not None and ready.is_file():
        arrays = _from_npz(ready)
    else:
        zips = [_fetch(name, Path(folder) if folder else None) for name in ZIPS]
        version = hashlib.sha256(f"1 {SIZE} {sorted(ZIPS.values())}".encode()).hexdigest()[:16]
        arrays = cached(f"omniglot-{version}", lambda: _from_zips(zips))
    return Omniglot(
        arrays["images"], arrays["alphabet"], arrays["number"], arrays["background"], tuple(arrays["names"].tolist())
    )


def _from_npz(path: Path) -> Arrays:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            names, alphabet, number = file["alphabet_names"], file["char_alphabet"], file["char_number"]
            images, background = file["images"], file["char_is_background"]
            order = np.lexsort((number, names[alphabet]))
            return _arranged([(str(names[alphabet[i]]), int(number[i]), bool(background[i]), images[i]) for i in order])
    except Exception as error:  # a damaged archive has many ways to fail
        raise UserError(f"Expected Omniglot in {path}, but it is damaged or another file: {error!r}.") from error


def _fetch(name: str, folder: Path | None) -> Path:
    """A zip file of the official ones, from the folder if it is there."""
    if folder is not None and (folder / name).is_file():
        path = folder / name
        kind, expected = ZIPS[name].split(":")
        if pooch.file_hash(str(path), alg=kind) != expected:
            raise UserError(f"{path} is not the official {name}: its {kind} is not {expected}. Fetch it again.")
        return path
    try:
        fetched = pooch.retrieve(SOURCE + name, known_hash=ZIPS[name], fname=name, path=cache_folder() / "omniglot")
    except Exception as error:  # whatever the network, the server or the disk raise
        raise UserError(
            f"Could not fetch {SOURCE + name}: {_why(error)}. Fetch {' and '.join(ZIPS)} yourself and name their "
            "folder in METATOWER_DATA."
        ) from error
    return Path(fetched)


def _why(error: BaseException) -> str:
    """The sentence at the bottom: what fetches wraps errors in errors, each with the text of all below it."""
    inside = (getattr(error, "reason", None), *error.args, error.__cause__)
    inner = next((each for each in inside if isinstance(each, BaseException)), None)
    # urllib3 puts the connection's repr before what it has to say
    return _why(inner) if inner is not None else re.sub(r"^\w+\(.*?\): ", "", str(error)).rstrip(".")


def _from_zips(zips: list[Path]) -> Arrays:
    rows = []
    for path in zips:
        background = "background" in path.name
        with zipfile.ZipFile(path) as archive:
            drawings: dict[tuple[str, int], list[str]] = {}
            for name in sorted(archive.namelist()):
                place = PurePosixPath(name)
                if place.suffix == ".png" and place.parent.name.startswith("character"):
                    character = int(place.parent.name.removeprefix("character"))
                    drawings.setdefault((place.parent.parent.name, character), []).append(name)
            for (alphabet, character), names in drawings.items():
                images = np.stack([_drawing(archive.read(name)) for name in names])
                rows.append((alphabet, character, background, images))
    return _arranged(sorted(rows, key=lambda row: row[:2]))


def _drawing(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        ink = ImageOps.invert(image.convert("L"))
        return np.asarray(ink.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def _arranged(rows: list[tuple[str, int, bool, np.ndarray]]) -> Arrays:
    names = sorted({row[0] for row in rows})
    return {
        "images": np.stack([row[3] for row in rows]),
        "alphabet": np.array([names.index(row[0]) for row in rows], np.int32),
        "number": np.array([row[1] for row in rows], np.int32),
        "background": np.array([row[2] for row in rows], bool),
        "names": np.array(names),
    }
