"""Letters of many scripts, drawn by the fonts that come with matplotlib: real images with nothing to download.

With matplotlib 3.11 these are the DejaVu and STIX families. Of 3,008 letters (Unicode categories L*) of 13 scripts in
at least four font files, 2,651 remain when those that are drawn as another one is are left out (K of Latin and kappa,
the isolated form of an Arabic letter); no drawing is of two letters. 1,692 have at least eight different drawings.
Licences of the fonts: Bitstream Vera / DejaVu, and STIX.
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
from fontTools import unicodedata as scripts
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont, features

from metatower.core.errors import UserError
from metatower.tasks.arrays import resized
from metatower.tasks.cache import cached, checksum
from metatower.tasks.episodes import Episodes

SIZE = 28
"""Pixels along a side of a drawing."""
INK = 20
"""Pixels along the larger side of the inked box, which sits in the middle."""
LEAST_FONTS = 4
ALIKE = 0.2
"""Most of a letter's drawings that may be another's; with more it is left out as the same letter. Up to there only
those drawings are left out: a font without small letters must not take them from all others."""
_DRAWN_AT = 3 * INK
_RENDERER = 2
"""To be counted up whenever the drawings change, so that old caches are not used."""

TRAIN_SCRIPTS = ("Latin", "Greek", "Cyrillic", "Coptic", "Lisu", "Old Italic", "Common")
"""Scripts that borrow shapes from one another stay together. "Common" are letters used as symbols. 1,740 letters."""
VALIDATION_SCRIPTS = ("Canadian Aboriginal", "Lao")
"""433 letters."""
TEST_SCRIPTS = ("Arabic", "Armenian", "Georgian", "Hebrew")
"""478 letters."""
SPLITS = {"train": TRAIN_SCRIPTS, "validation": VALIDATION_SCRIPTS, "test": TEST_SCRIPTS}


@dataclass(frozen=True)
class Glyphs:
    """Drawings of letters; ragged, as not every font has every letter.

    Args:
        images: uint8 `[classes, drawings, 28, 28]`, ink is 255; drawings beyond `count` are blank.
        count: int `[classes]`, how many drawings a letter has.
        font: int `[classes, drawings]`, index into `fonts`; -1 beyond `count`.
        script: int `[classes]`, index into `scripts`.
        character: the letters, `[classes]`.
        scripts: names of scripts, as Unicode has them.
        fonts: names of font files, without their folders.
    """

    images: np.ndarray
    count: np.ndarray
    font: np.ndarray
    script: np.ndarray
    character: np.ndarray
    scripts: tuple[str, ...]
    fonts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.count)

    @property
    def table(self) -> dict[str, int]:
        """How many letters each script has, the largest first."""
        counts = {name: int(np.sum(self.script == i)) for i, name in enumerate(self.scripts)}
        return dict(sorted(((name, n) for name, n in counts.items() if n), key=lambda item: (-item[1], item[0])))

    def select(self, scripts: Iterable[str] | None = None, min_fonts: int = 1) -> "Glyphs":
        """The letters of these scripts that have at least `min_fonts` different drawings.

        Raises:
            UserError: a script that is not there, or nothing left.
        """
        keep = self.count >= min_fonts
        if scripts is not None:
            scripts = tuple(scripts)
            unknown = sorted(set(scripts) - set(self.scripts))
            if unknown:
                raise UserError(f"Expected scripts from {', '.join(self.scripts)}; got {', '.join(unknown)}.")
            keep = keep & np.isin(self.script, [self.scripts.index(name) for name in scripts])
        if not keep.any():
            raise UserError(
                f"No letter of {', '.join(scripts or self.scripts)} has {min_fonts} different drawings. "
                "Ask for fewer, or add a folder of fonts."
            )
        most = int(self.count[keep].max())
        return replace(
            self,
            images=self.images[keep, :most],
            count=self.count[keep],
            font=self.font[keep, :most],
            script=self.script[keep],
            character=self.character[keep],
        )


def glyphs(fonts: Path | str | None = None) -> Glyphs:
    """Every letter in at least four font files but those drawn as another is, drawn once and kept in the cache.

    Args:
        fonts: a folder of further font files (.ttf, .otf, .ttc; sub-folders too), the system's for example.

    Raises:
        UserError: the folder cannot be read or holds no fonts, or a font file is damaged.
    """
    files = _own_fonts() + ([] if fonts is None else _fonts_in(Path(fonts)))
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(_bytes(file)).digest())
    tag = f"{_RENDERER} {SIZE} {INK} {LEAST_FONTS} {unicodedata.unidata_version} {features.version('freetype2')}"
    digest.update(tag.encode())
    arrays = cached(f"glyphs-{digest.hexdigest()[:24]}", lambda: _draw_all(files))
    return Glyphs(
        **{name: arrays[name] for name in ("images", "count", "font", "script", "character")},
        scripts=tuple(arrays["scripts"].tolist()),
        fonts=tuple(file.name for file in files),
    )


def fingerprint(fonts: Path | str | None = None) -> str:
    """A checksum of all letters and drawings of `glyphs(fonts)`, whatever the fonts are called and where they are.

    Raises:
        UserError: as `glyphs`.
    """
    found = glyphs(fonts)
    names = ("images", "count", "font", "script", "character")
    return checksum({name: getattr(found, name) for name in names})[:24]


def glyph_tasks(
    split: str = "train",
    *,
    ways: int = 5,
    shots: int = 1,
    queries: int = 3,
    rotations: bool = False,
    size: int = SIZE,
    fonts: Path | str | None = None,
) -> Episodes:
    """N-way K-shot tasks from the letters of a split that have enough drawings.

    Args:
        split: "train", "validation" or "test", which share no script.
        ways, shots, queries, rotations: see `Episodes`; many letters have four drawings only.
        size: pixels along a side.
        fonts: a folder of further fonts.

    Raises:
        UserError: no letter with enough drawings, more ways than letters, or bad fonts.
    """
    if split not in SPLITS:
        raise UserError(f"Expected a split of {', '.join(SPLITS)}; got {split!r}.")
    letters = glyphs(fonts).select(SPLITS[split], min_fonts=shots + queries)
    return Episodes(resized(letters.images, size), letters.count, ways, shots, queries, rotations)


def _own_fonts() -> list[Path]:
    """The DejaVu and STIX files of the matplotlib wheel; its others have no ordinary letters."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = sorted(folder.glob("DejaVu*.ttf")) + sorted(folder.glob("STIX*.ttf"))
    if not files:
        raise UserError(f"Expected matplotlib's DejaVu and STIX fonts in {folder}, found none. Reinstall matplotlib.")
    return files


def _fonts_in(folder: Path) -> list[Path]:
    try:
        if not folder.is_dir():
            raise UserError(f"Expected a folder of font files, got {folder}, which is not a folder.")
        next(folder.iterdir(), None)  # rglob passes over what it may not read
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".ttf", ".otf", ".ttc") and p.is_file())
    except OSError as error:
        raise UserError(f"The font folder {folder} cannot be read: {error.strerror or error}.") from error
    if not files:
        raise UserError(f"Expected font files (.ttf, .otf, .ttc) in {folder}, found none.")
    return files


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"The font file {file} cannot be read: {error.strerror or error}.") from error


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(f"The font file {file} is damaged or not a font: {error}. Remove it from the folder.")


def _letters(file: Path) -> set[int]:
    """Code points of the letters that a font has outlines for."""
    try:
        with file.open("rb") as opened, TTFont(opened, lazy=True, fontNumber=0) as font:
            if not any(table in font for table in ("glyf", "CFF ", "CFF2")):
                return set()  # bitmaps only, colour emoji for example
            points = font.getBestCmap() or {}
    except Exception as error:  # fontTools raises whatever the damage makes it trip over
        raise _damaged(file, error) from error
    return {point for point in points if unicodedata.category(chr(point)).startswith("L")}


def _draw_all(files: list[Path]) -> dict[str, np.ndarray]:
    letters = [_letters(file) for file in files]
    fonts_of: dict[int, list[int]] = {}
    for index, points in enumerate(letters):
        for point in points:
            fonts_of.setdefault(point, []).append(index)
    wanted = sorted(point for point, having in fonts_of.items() if len(having) >= LEAST_FONTS)
    typefaces = [_open(file) for file in files]
    drawn: list[tuple[int, list[tuple[int, bytes]]]] = []
    taken: set[bytes] = set()
    for point in wanted:
        different: dict[bytes, int] = {}
        for index in fonts_of[point]:
            try:
                image = draw(chr(point), typefaces[index])
            except (OSError, ValueError) as error:
                raise _damaged(files[index], error) from error
            if image is not None:
                different.setdefault(image, index)
        # A drawing is of one letter: the first that has it. Capital K and kappa are one class, or none could tell them.
        new = {image: index for image, index in different.items() if image not in taken}
        if new and len(different) - len(new) <= ALIKE * len(different):
            drawn.append((point, [(index, image) for image, index in new.items()]))
            taken.update(new)
    names = sorted({_script(point) for point, _ in drawn})
    most = max((len(drawings) for _, drawings in drawn), default=0)
    images = np.zeros((len(drawn), most, SIZE, SIZE), np.uint8)
    font = np.full((len(drawn), most), -1, np.int16)
    for row, (_, drawings) in enumerate(drawn):
        for column, (index, image) in enumerate(drawings):
            images[row, column] = np.frombuffer(image, np.uint8).reshape(SIZE, SIZE)
            font[row, column] = index
    return {
        "images": images,
        "font": font,
        "count": np.array([len(drawings) for _, drawings in drawn], np.int32),
        "script": np.array([names.index(_script(point)) for point, _ in drawn], np.int32),
        "character": np.array([chr(point) for point, _ in drawn], dtype="U1"),
        "scripts": np.array(names),
    }


def _script(point: int) -> str:
    return str(scripts.script_name(scripts.script(chr(point))))


def _open(file: Path) -> ImageFont.FreeTypeFont:
    try:
        # the basic layout draws every letter by itself, the same with and without libraqm
        return ImageFont.truetype(file, _DRAWN_AT, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise _damaged(file, error) from error


def draw(character: str, font: ImageFont.FreeTypeFont) -> bytes | None:
    """One letter, scaled so that the larger side of its ink is 20 pixels, in the middle of 28 x 28; None if blank."""
    left, top, right, bottom = map(int, font.getbbox(character))
    if right <= left or bottom <= top:
        return None
    large = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(large).text((2 - left, 2 - top), character, fill=255, font=font)
    box = large.getbbox()
    if box is None:
        return None
    width, height = box[2] - box[0], box[3] - box[1]
    scale = INK / max(width, height)
    small = large.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BOX, box)
    darkest = max(small.tobytes())
    if darkest == 0:
        return None
    # as dark as the strokes are wide, but never faint: hairlines and dots alike reach full ink
    small = small.point([min(255, value * 255 // darkest) for value in range(256)])
    image = Image.new("L", (SIZE, SIZE))
    image.paste(small, ((SIZE - small.width) // 2, (SIZE - small.height) // 2))
    return image.tobytes()
