"""The gradient of a run's top storey, measured at its start and at what it learned: what `metatower health` does."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from metatower.core import Descend, Learner, names, pick, put
from metatower.core.errors import UserError, resume_command
from metatower.evaluation import report
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.gradient_health import (
    LAST,
    REUSED,
    SMOOTH,
    Health,
    Row,
    Thresholds,
    called,
    estimators,
    gradient_health,
    recommend,
)
from metatower.recipes.base import Recipe
from metatower.recipes.run import is_finished, load, recipe_of
from metatower.training.progress import Progress, Silent

START, TRAINED = "where training set out from", "at what it learned"
HEAVY = 10.0
"""The longest gradient is so many times the middle one, or more: the tail is heavy."""


def health(folder: Path, *, samples: int = 16, seed: int = 0, out: Path | None = None, show: Progress | None = None):
    """Measures the gradients of the top storey of a run, on fresh tasks of its training distribution.

    Args:
        folder: of the run.
        samples: gradients of each estimator, each of a batch as in training; at least 2.
        seed: chooses the tasks.
        out: a new folder for `health.json` and `health.html`; into the run's `health.json` and `report.html` if None.

    Returns:
        A `Conclusion` with a `Health` for what was learned and, where it can be had without a training, for the start;
        and the page.

    Raises:
        UserError: no trained run, a top storey without inner runs or without a gradient, or fewer than two samples.
    """
    folder, show = Path(folder), show or Silent()
    recipe, learner = recipe_of(folder), load(folder)
    if out is None and not is_finished(folder):
        raise UserError(
            f"The run in {folder} is not finished: continue it with `{resume_command(folder)}`, or give a folder --out."
        )
    if samples < 2:
        raise UserError(f"Expected --samples of at least 2, got {samples}.")
    if not 0 <= seed < 2**32:
        raise UserError(f"Expected --seed from 0 to 2**32 - 1, got {seed}.")
    fresh, tasks = recipe.build()
    if not isinstance(fresh, Descend) or not isinstance(getattr(fresh.objective, "learner", None), Learner):
        raise UserError(
            f"`health` is for a top storey that follows a gradient through inner runs, as `lift` makes it; "
            f"{recipe.name} trains by {type(fresh).__name__}, which has none. Try a run of maml-sinusoid or of "
            "optimised-maml."
        )
    places = {TRAINED: with_numbers_of(fresh, learner)}
    if type(recipe).begin is Recipe.begin or (folder / "baselines").is_dir():
        places = {START: recipe.begin(fresh, folder, show), **places}
    found = Conclusion()
    for name, tower in places.items():
        show.note(f"measuring {samples} gradients of {len(estimators(tower))} estimators {name} …")
        each = gradient_health(tower, tasks, draws=samples, seed=seed)
        found.figures[name] = dataclasses.replace(each, place=name)
    trained = found.figures[TRAINED]
    found.notes = _notes(fresh, trained, found.figures.get(START))
    found.figures["averaged"] = _averaged(trained)
    if out is not None:
        return found, report.write_apart(found, Path(out), report.HEALTH, f"{recipe.name}: {folder}")
    found.save(folder / report.HEALTH)
    return found, report.rewrite(folder, recipe.about(), recipe.use)


def with_numbers_of(tower: Descend, learner: Learner) -> Descend:
    """The tower over its inner learner with the numbers of a trained one, found by their names.

    The artefact of a recipe may take other steps, or know statistics that its training does not.

    Raises:
        UserError: a number of the tower that the learner does not have.
    """
    inner = tower.objective.learner
    there = dict(zip(names(learner), pick(learner), strict=True))
    if missing := [name for name in names(inner) if name not in there]:
        raise UserError(f"The trained learner has no {missing[0]}, which its training moved: `health` cannot place it.")
    numbers = put(inner, [there[name] for name in names(inner)])
    return dataclasses.replace(tower, objective=dataclasses.replace(tower.objective, learner=numbers))


def _notes(tower: Descend, trained: Health, start: Health | None) -> list[str]:
    """A sentence for each number."""
    first, gradients = trained.rows[0], estimators(tower)
    return [
        f"{len(first.norms)} gradients of each estimator, each of {tower.objective.batch} fresh tasks of the "
        f"training distribution, by {trained.size:,} learned numbers through runs of {trained.steps} step(s). The run "
        f"was trained by {called(tower.gradient)}.",
        _length(first, start),
        _signal(first, start),
        *(_cosine(row, trained, gradients[row.name]) for row in trained.rows[1:]),
        _chaos(trained, start),
        str(recommend(trained)),
    ]


def _before(start: Health | None, number: str) -> str:
    return "" if start is None else f" ({number} at the start)"


def _length(row: Row, start: Health | None) -> str:
    mean, middle, largest = np.mean(row.norms), np.median(row.norms), np.max(row.norms)
    before = "" if start is None else f"{np.mean(start.rows[0].norms):.3g}"
    if row.finite < 1:
        return (
            f"Norm: {100 * (1 - row.finite):.0f} % of the gradients ({row.name}) are not finite, and stop a training."
        )
    ratio = largest / middle if middle > 0 else math.inf
    tail = (
        "a heavy tail, where single batches decide: `Clipped` keeps each run to its share"
        if ratio >= HEAVY
        else "no heavy tail"
    )
    return (
        f"Norm ({row.name}): {mean:.3g} on average{_before(start, before)}; the largest, {largest:.3g}, is {ratio:.1f} "
        f"times the middle one: {tail}."
    )


def _signal(row: Row, start: Health | None) -> str:
    ratio = row.signal_to_noise
    before = _before(start, "" if start is None else f"{start.rows[0].signal_to_noise:.2g}")
    if ratio == 0:
        words = f"in {len(row.norms)} samples the mean gradient cannot be told from none; more --samples may"
    elif ratio >= 1:
        words = "a single step's gradient is more signal than noise"
    else:
        words = f"it takes about {math.ceil(1 / ratio**2):,} steps' gradients until their mean is as long as its error"
    return f"Signal to noise of one gradient ({row.name}): {ratio:.2g}{before}; {words}."


def _cosine(row: Row, health: Health, gradient: Any) -> str:
    cosine, against = row.cosine, health.rows[0].name
    if not math.isfinite(cosine.mean):
        return f"{row.name} against {against}: no cosine, as a gradient is zero or not finite."
    if row.name in (SMOOTH, REUSED):
        most = math.sqrt(gradient.pairs / (gradient.pairs + health.size))
        words = f"{gradient.pairs} random directions among {health.size:,} numbers allow about {most:.2f}"
    elif cosine.lo >= Thresholds().agreement:
        words = "the same direction"
    else:
        words = "mostly the same direction" if cosine.lo > 0.5 else "little or nothing of the same direction"
    name = f"{row.name}, last {gradient.last} of {health.steps} steps," if row.name == LAST else row.name
    return f"{name} against {against}: cosine {cosine.mean:.3f} [{cosine.lo:.3f}, {cosine.hi:.3f}]; {words}."


def _chaos(health: Health, start: Health | None) -> str:
    before = _before(start, "" if start is None or start.exponents is None else f"{start.exponent:.3g}")
    said = f"Largest Lyapunov exponent of the runs below{before}: {health.chaos}"
    if health.exponents is None or health.diverged:
        return f"{said}."
    if health.growth > Thresholds().growth:
        return f"{said}; they are chaotic, and an exact gradient grows as much."
    return f"{said}; " + ("they forget where they start." if health.growth < 0.5 else "they are not chaotic.")


def _averaged(health: Health) -> Curves:
    """Cosines of means of gradients."""
    against = health.rows[0].name
    series = {row.name: row.averaged for row in health.rows if row.averaged is not None}
    return Curves(
        f"Do means of several gradients point where the mean {against} gradient of other tasks points? The higher, the "
        "better the direction; what stays below 1 however many are averaged is bias, or noise in what it is compared "
        f"with. Means over choices of tasks, and bands that hold nine of ten, {TRAINED}.",
        "gradients averaged",
        f"cosine with the mean {against} gradient",
        series,
        np.arange(1, 1 + min(len(each.mean) for each in series.values())),
    )
