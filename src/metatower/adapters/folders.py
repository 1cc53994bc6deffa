"""Folders of pictures in, named pictures out: what `metatower adapt` does."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from metatower.adapters.adapted import Adapted
from metatower.adapters.pictures import prepared
from metatower.core.errors import UserError
from metatower.recipes.learners import find_learner
from metatower.tasks.arrays import pictures_by_class, pictures_in
from metatower.training.files import check_unused, write_bytes, write_text
from metatower.training.progress import Progress

SURE = 0.2
"""How far the best class must be ahead of the second, in probability, not to be doubtful."""
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
    def doubtful(self) -> np.ndarray:
        """Whether the best class is less than `SURE` ahead of the second, for each file."""
        ordered = np.sort(self.probabilities, axis=1)
        return ordered[:, -1] - ordered[:, -2] < SURE


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
    """Where the picture sheet of a table will be.

    Raises:
        UserError: one of the two files is there already.
    """
    sheet = out.with_suffix(".png")
    if out.suffix.lower() == ".png":
        raise UserError(f"--out is the table, and {sheet} would be the picture sheet. Choose another name, like a.csv.")
    check_unused(out, sheet)
    return sheet


def write(answers: Answers, out: Path) -> Path:
    """Writes the table, and a picture sheet beside it.

    Returns:
        Where the sheet is.

    Raises:
        UserError: one of the two files is there already, or cannot be written.
    """
    sheet = check_free(out)
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["file", "class", "probability", "doubtful", *(f"p({name})" for name in answers.classes), "error"])
    for file, each, best, doubtful in _rows(answers):
        shown = (f"{p:.6f}" for p in each)
        table.writerow([file, answers.classes[best], f"{each[best]:.6f}", "yes" if doubtful else "no", *shown, ""])
    for file, reason in answers.unreadable.items():
        table.writerow([file, "", "", "", *[""] * len(answers.classes), reason])
    drawn = _sheet(answers)
    write_text(out, text.getvalue())
    write_bytes(sheet, drawn)
    return sheet


def show(answers: Answers) -> None:
    """Prints the answers as a table."""
    from rich.console import Console
    from rich.table import Table

    console, table = Console(), Table(box=None)
    for title in ("picture", "class", "probability", "next best", ""):
        table.add_column(title, justify="right" if title == "probability" else "left")
    for file, each, best, doubtful in _rows(answers):
        second = int(np.argsort(each)[-2])
        next_best = f"{answers.classes[second]} {100 * each[second]:.1f} %"
        note = "doubtful" if doubtful else ""
        table.add_row(str(file), answers.classes[best], f"{100 * each[best]:.1f} %", next_best, note)
    console.print(table, markup=False, soft_wrap=True)
    count = int(answers.doubtful.sum())
    print(f"\n{len(answers.files)} pictures named, {count} of them doubtful (less than {100 * SURE:.0f} points ahead).")
    for reason in answers.unreadable.values():
        print(f"set aside: {reason}")


def _rows(answers: Answers):
    return zip(answers.files, answers.probabilities, answers.best.tolist(), answers.doubtful.tolist(), strict=True)


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
    """The examples of each class, a row each, and below what was named, the doubtful first."""
    from matplotlib.figure import Figure

    columns = 10
    learned = len(answers.support)
    ahead = np.sort(answers.probabilities, axis=1)
    order = np.argsort(ahead[:, -1] - ahead[:, -2], kind="stable")[:ANSWERS]
    rows = len(answers.classes) + -(-len(order) // columns)
    figure = Figure(figsize=(columns * 1.0, rows * 1.25), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.set_axis_off()
    numbers = np.array([number for _, number in answers.support])
    for number, name in enumerate(answers.classes):
        for place, i in enumerate(np.flatnonzero(numbers == number)[:EXAMPLES]):
            axes[number, place + 1].imshow(answers.pictures[i], cmap="gray", vmin=0, vmax=1)
        axes[number, 0].text(0.95, 0.5, name[:14], ha="right", va="center", transform=axes[number, 0].transAxes)
    for place, i in enumerate(order):
        here = axes[len(answers.classes) + place // columns, place % columns]
        here.imshow(answers.pictures[learned + i], cmap="gray", vmin=0, vmax=1)
        best = answers.best[i]
        label = f"{answers.classes[best][:12]}\n{100 * answers.probabilities[i, best]:.0f} %"
        here.set_title(label, fontsize=7, color="firebrick" if answers.doubtful[i] else "black")
    figure.suptitle("Above: learned from. Below: named; doubtful ones in red.", fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
