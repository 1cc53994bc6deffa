"""Folders of pictures in, named pictures out: what `metatower adapt` does."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from jaxtyping import Bool, Float, Int

from metatower.adapters.adapted import Adapted
from metatower.adapters.pictures import prepared
from metatower.adapters.sheet import sheet
from metatower.core.errors import UserError
from metatower.recipes.learners import find_learner
from metatower.tasks.arrays import pictures_by_class, pictures_in
from metatower.training.files import check_unused, make_folder, write_bytes, write_text, writing
from metatower.training.progress import Progress

SURE = 0.2
"""How far the best class must be ahead of the second, in probability, not to be doubtful."""
BLANK = "the picture is blank: all of it has one shade"
EXAMPLES, ANSWERS = 8, 60
"""Pictures on the sheet: of each class, and of those that were named, the doubtful first."""


@dataclass(frozen=True)
class Answers:
    """What was said of each picture."""

    classes: tuple[str, ...]
    support: list[tuple[Path, int]]
    """The pictures learned from, with the number of their class."""
    files: list[Path]
    """The pictures that were named."""
    probabilities: Float[np.ndarray, "file way"]
    unreadable: dict[Path, str]
    """Pictures that could not be named, with the reason."""
    pictures: Float[np.ndarray, "example_and_file side side"]
    """As the learner sees them: those learned from, then those named."""

    @property
    def best(self) -> Int[np.ndarray, " file"]:
        """The number of the most probable class."""
        return np.argmax(self.probabilities, axis=1)

    @property
    def doubtful(self) -> Bool[np.ndarray, " file"]:
        """Whether the best class is less than `SURE` ahead of the second, for each file; all blank ones are."""
        return (_lead(self.probabilities) < SURE) | self.blank

    @property
    def blank(self) -> Bool[np.ndarray, " file"]:
        """Whether a file shows nothing but one shade, which no class can be told by."""
        return np.ptp(self.pictures[len(self.support) :], axis=(1, 2)) == 0


def name_pictures(support: Path, predict: Sequence[Path], learner: str, show: Progress) -> Answers:
    """Adapts a learner to the sub-folders of `support`, and asks it for each picture of `predict`.

    A damaged picture to learn from is an error, one to be named is set aside.

    Raises:
        UserError: folders or files that are not there or cannot be read, fewer than two classes, no such learner.
    """
    found = find_learner(learner)
    size = found.size
    if size is None:
        raise UserError(
            f"The learner {learner} does not say what size its pictures have: it was not made for pictures."
        )
    by_class = pictures_by_class(Path(support).expanduser())
    if len(by_class) < 2:
        raise UserError(f"Expected at least two classes (sub-folders) in {support}, got one: {next(iter(by_class))}.")
    files = list(_files(predict))
    if not files:
        raise UserError("Expected pictures to name, or folders of them, after --predict; got none.")
    known = [(file, number) for number, each in enumerate(by_class.values()) for file in each]
    show.start("reading pictures", len(known) + len(files))
    try:
        examples = []
        for file, _ in known:
            examples.append(prepared([file], size, ink=found.ink)[0])
            show.advance(1)
        inputs, readable, unreadable = [], [], {}
        for file in files:
            try:
                inputs.append(prepared([file], size, ink=found.ink)[0])
                readable.append(file)
            except UserError as error:
                unreadable[file] = str(error)
            show.advance(1)
    finally:
        show.finish()
    if not readable:
        raise UserError(f"None of the {len(files)} pictures can be read. The first: {next(iter(unreadable.values()))}")
    adapted = Adapted(found.learner, np.stack(examples), np.array([number for _, number in known]), len(by_class))
    probabilities = adapted.probabilities(np.stack(inputs))
    pictures = np.stack([*examples, *inputs])
    return Answers(tuple(by_class), known, readable, probabilities, unreadable, pictures)


def check_free(out: Path) -> Path:
    """Where the picture sheet of a table will be; the folder of both is made if need be.

    Raises:
        UserError: one of the two files is there already, the table is not called .csv, or the disk refuses.
    """
    if out.suffix.lower() != ".csv":
        raise UserError(f"--out is the table: expected a name that ends in .csv, like answers.csv, got {out}.")
    beside = out.with_suffix(".png")
    check_unused(out, beside)
    make_folder(out.parent)
    with writing(out), TemporaryFile(dir=out.parent):  # refused now, and not after the work is done
        return beside


def write(answers: Answers, out: Path) -> Path:
    """Writes the table, and then a picture sheet beside it.

    Returns:
        Where the sheet is.

    Raises:
        UserError: one of the two files is there already, or cannot be written.
    """
    beside = check_free(out)
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["file", "class", "probability", "doubtful", *(f"p({name})" for name in answers.classes), "error"])
    for file, each, best, doubtful, blank in _rows(answers):
        shown, error = (f"{p:.6f}" for p in each), BLANK if blank else ""
        table.writerow([file, answers.classes[best], f"{each[best]:.6f}", "yes" if doubtful else "no", *shown, error])
    for file, reason in answers.unreadable.items():
        table.writerow([file, "", "", "", *[""] * len(answers.classes), reason])
    write_text(out, text.getvalue())
    write_bytes(beside, _sheet(answers))
    return beside


def show(answers: Answers) -> None:
    """Prints the answers as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for title in ("picture", "class", "probability", "next best", ""):
        table.add_column(title, justify="right" if title == "probability" else "left", overflow="fold")
    for file, each, best, doubtful, blank in _rows(answers):
        # as `best` takes the first of those that are equal
        second = int(np.argsort(-each, kind="stable")[1])
        next_best = f"{answers.classes[second]} {100 * each[second]:.1f} %"
        note = "blank" if blank else "doubtful" if doubtful else ""
        cells = (str(file), answers.classes[best], f"{100 * each[best]:.1f} %", next_best, note)
        table.add_row(*map(Text, cells))  # as it is, whatever of markup or emoji a name may look like
    Console(highlight=False).print(table)
    count = int(answers.doubtful.sum())
    print(
        f"\n{len(answers.files)} pictures named, {count} of them doubtful (less than {100 * SURE:.0f} points ahead, or "
        "blank)."
    )
    for reason in answers.unreadable.values():
        print(f"set aside: {reason}")


def _rows(answers: Answers):
    said = (answers.best.tolist(), answers.doubtful.tolist(), answers.blank.tolist())
    return zip(answers.files, answers.probabilities, *said, strict=True)


def _files(given: Iterable[Path]) -> Iterable[Path]:
    for path in (Path(each).expanduser() for each in given):
        if path.is_dir():
            inside = pictures_in(path)
            if not inside:
                raise UserError(f"There are no pictures in {path}. Give pictures, or a folder that holds them.")
            yield from inside
        elif path.exists():
            yield path
        else:
            raise UserError(f"There is no picture {path}.")


def _sheet(answers: Answers) -> bytes:
    numbers, learned = np.array([number for _, number in answers.support]), len(answers.support)
    examples = [
        (name, answers.pictures[np.flatnonzero(numbers == number)[:EXAMPLES]])
        for number, name in enumerate(answers.classes)
    ]
    sureness = answers.probabilities.max(axis=1)
    order = np.argsort(np.where(answers.blank, -1.0, _lead(answers.probabilities)), kind="stable")[:ANSWERS]
    named = [
        (
            answers.pictures[learned + i],
            answers.classes[answers.best[i]],
            f"{100 * sureness[i]:.0f} %",
            bool(answers.doubtful[i]),
        )
        for i in order
    ]
    return sheet(examples, named)


def _lead(probabilities: Float[np.ndarray, "file way"]) -> Float[np.ndarray, " file"]:
    """How far the best class is ahead of the second."""
    ordered = np.sort(probabilities, axis=1)
    return ordered[:, -1] - ordered[:, -2]
