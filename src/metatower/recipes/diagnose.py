"""A trained learner looked at from several sides: what `metatower diagnose` does."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from metatower.core import Descend, Learner, Tasks, value
from metatower.core.errors import UserError, resume_command
from metatower.core.leaves import names
from metatower.evaluation import report
from metatower.evaluation.conclusion import Conclusion, Curves, Rates
from metatower.evaluation.diagnosis import (
    Shuffled,
    calibration,
    confidences,
    head_and_body,
    similarity,
)
from metatower.evaluation.episodes import adaptation_scores, evaluate
from metatower.evaluation.statistics import Interval, interval
from metatower.recipes.run import is_finished, load, recipe_of
from metatower.recipes.shipped import folder_of
from metatower.rules.common import PerLeaf
from metatower.tasks.episodes import Episodes
from metatower.tasks.glyphs import glyph_tasks
from metatower.tasks.omniglot import has_omniglot, omniglot
from metatower.training.progress import Progress, Silent

SHOTS = (1, 2, 3, 5, 10)
"""Examples per class that are tried, as far as there are enough pictures."""
MORE_STEPS = 3
"""How many times the learner's own steps the curve goes on."""
STREAM = 0xD1A6
"""Added to the seed, for tasks that the run has not been judged on."""
KNOWN = "classes of training"
OURS, SHUFFLED = "held-out tasks", "held-out tasks, labels of the support shuffled"


def diagnose(
    folder: Path, *, episodes: int = 200, seed: int = 0, out: Path | None = None, show: Progress | None = None
):
    """Looks at the learner of a finished run; writes `diagnosis.json` there, and `report.html` with it.

    Args:
        folder: of the run, or of a model, or the name of one that comes with the package.
        episodes: tasks for each question.
        seed: chooses them.
        out: a new folder for `diagnosis.json` and `diagnosis.html`; a model that is no run needs one.

    Returns:
        The `Conclusion`, and the page.

    Raises:
        UserError: no finished run, or a learner that is not one of classes.
    """
    folder = folder_of(Path(folder))
    recipe, learner = recipe_of(folder), load(folder)
    if out is None and not is_finished(folder):
        raise UserError(
            f"The run in {folder} is not finished: continue it with `{resume_command(folder)}`, or give a folder --out."
        )
    if episodes < 2:
        raise UserError(f"Expected --episodes of at least 2, got {episodes}.")
    tasks = recipe.held_out()
    if learner.height or not isinstance(tasks, Episodes):
        raise UserError(f"`diagnose` is for learners of classes of pictures; {recipe.name} trains none.")
    how: dict[str, Any] = {"episodes": episodes, "seed": (seed + STREAM) % 2**32, "show": show or Silent()}
    chance = 1 / tasks.ways
    found = Conclusion(
        notes=[f"{tasks.ways} ways, {tasks.shots} shot(s), {tasks.queries} queries per class; chance is {chance:.0%}."]
    )
    found.add(OURS, evaluate(learner, tasks, title="held-out tasks", **how), "task")
    _memory(found, learner, tasks, chance, how)
    _domains(found, learner, recipe, tasks, how)
    _features(found, learner, tasks, how)
    _steps(found, learner, tasks, how)
    _shots(found, learner, tasks, how)
    _sureness(found, learner, tasks, how)
    _rates(found, learner)
    if out is not None:
        return found, report.write_apart(found, Path(out), report.DIAGNOSIS, f"{recipe.name}: {folder}")
    found.save(folder / report.DIAGNOSIS)
    return found, report.rewrite(folder, recipe.about(), recipe.use)


def _memory(found: Conclusion, learner: Learner, tasks: Tasks, chance: float, how: dict) -> None:
    scores = evaluate(learner, Shuffled(tasks), title="shuffled labels", **how)
    found.add(SHUFFLED, scores, "task")
    found.compare(OURS, SHUFFLED, metrics=("accuracy",))
    left = float(np.mean(scores["accuracy"]))
    verdict = "it has not memorised the classes" if left < chance + 0.1 else "it has memorised classes in part"
    found.notes.append(
        f"With shuffled labels in the support set {left:.1%} are right, where chance is {chance:.0%}: {verdict}."
    )


def _domains(found: Conclusion, learner: Learner, recipe: Any, tasks: Episodes, how: dict) -> None:
    layout = {"ways": tasks.ways, "shots": tasks.shots, "queries": tasks.queries}
    others: dict[str, Tasks] = {}
    seen = recipe.data()
    if isinstance(seen, Episodes):
        others[KNOWN] = dataclasses.replace(seen, **layout)
    size = tasks.images.shape[2]
    if tasks.images.ndim == 4 and getattr(recipe, "on", "glyphs") != "glyphs":
        layout["queries"] = min(tasks.queries, 3)
        others["letters of fonts, scripts of the test split"] = glyph_tasks("test", size=size, **layout)
    elif tasks.images.ndim == 4 and has_omniglot():
        others["Omniglot, alphabets of the evaluation set"] = omniglot(
            "test", "alphabets", rotations=False, size=size, **layout
        )
    ours = next(row for row in found.results if (row.name, row.metric) == (OURS, "accuracy"))
    for name, each in others.items():
        scores = evaluate(learner, each, title=name, **how)
        found.add(name, scores, "task")
        there = interval(np.asarray(scores["accuracy"]))
        # of other tasks, so that nothing is paired
        gap = there.mean - ours.mean if name == KNOWN else ours.mean - there.mean
        half = float(np.hypot(ours.ci95[1] - ours.mean, there.hi - there.mean))
        found.notes.append(
            f"The gap between {f'{name} and {OURS}' if name == KNOWN else f'{OURS} and {name}'} is {100 * gap:+.1f} "
            f"points [{100 * (gap - half):+.1f}, {100 * (gap + half):+.1f}]."
        )


def _features(found: Conclusion, learner: Learner, tasks: Tasks, how: dict) -> None:
    pair = head_and_body(learner)
    if pair is not None:
        for name, each in zip(("only the last layer moves", "all but the last layer move"), pair, strict=True):
            found.add(name, evaluate(each, tasks, title=name, **how), "task")
            found.compare(OURS, name, metrics=("accuracy",))
    alike = similarity(learner, tasks, episodes=min(how["episodes"], 50), seed=how["seed"])
    if alike is not None:
        found.figures["similarity"] = Curves(
            f"How alike each layer's outputs are before and after adaptation: linear CKA, means of {len(alike)} tasks. "
            "At 1 features are reused; below it they are learned anew on the task. The last layer is the output.",
            "layer, from the input",
            "linear CKA",
            {"before and after": interval(alike)},
            np.arange(1, alike.shape[1] + 1),
        )


def _steps(found: Conclusion, learner: Any, tasks: Tasks, how: dict) -> None:
    if not isinstance(learner, Descend):
        return
    scores = adaptation_scores(learner, tasks, steps=max(10, MORE_STEPS * learner.steps), title="steps", **how)
    found.figures["steps"] = Curves(
        f"Accuracy against steps on the task; it is used with {learner.steps}.",
        "gradient steps on the task",
        "accuracy",
        {OURS: interval(scores["accuracy"])},
    )


def _shots(found: Conclusion, learner: Learner, tasks: Episodes, how: dict) -> None:
    count = np.asarray(tasks.count)
    # as many examples as leaves enough classes to choose from, and then the same classes for every number
    tried = [shots for shots in SHOTS if np.sum(count >= shots + tasks.queries) >= 2 * tasks.ways]
    if len(tried) > 1:
        keep = count >= tried[-1] + tasks.queries
        pool = dataclasses.replace(tasks, images=tasks.images[keep], count=tasks.count[keep])
        curves = [
            np.asarray(evaluate(learner, dataclasses.replace(pool, shots=n), title=f"{n} shot(s)", **how)["accuracy"])
            for n in tried
        ]
        found.figures["shots"] = Curves(
            f"Accuracy against examples per class, on the {keep.sum():,} held-out classes that have enough of them; it "
            f"was trained with {tasks.shots}.",
            "examples of each class",
            "accuracy",
            {OURS: interval(np.stack(curves, axis=1))},
            np.array(tried),
        )


def _sureness(found: Conclusion, learner: Learner, tasks: Tasks, how: dict) -> None:
    try:
        sure, right = confidences(learner, tasks, episodes=how["episodes"], seed=how["seed"])
    except UserError:
        return
    each = calibration(sure, right)
    half = 1.96 * np.sqrt(each.accuracy * (1 - each.accuracy) / each.count)
    lines = {
        "the learner": Interval(each.accuracy, each.accuracy - half, each.accuracy + half, int(each.count.sum())),
        "as sure as right": Interval(each.confidence, each.confidence, each.confidence, 1),
    }
    found.figures["calibration"] = Curves(
        f"How often it is right where it is so sure; expected calibration error {each.error:.3f}. Below the line it is "
        "too sure. Bands take the answers as independent, which those of one task are not quite.",
        "probability that it gives its answer",
        "share of right answers",
        lines,
        each.confidence,
    )
    found.notes.append(
        f"It gives its answers {float(np.mean(sure)):.1%} on average, and {float(np.mean(right)):.1%} are right; "
        f"expected calibration error {each.error:.3f} (15 bins)."
    )


def _rates(found: Conclusion, learner: Any) -> None:
    rule = getattr(learner, "rule", None)
    while rule is not None and not hasattr(rule, "rate"):
        rule = getattr(rule, "rule", None)
    rate = getattr(rule, "rate", None)
    if not isinstance(rate, PerLeaf):
        return
    table = np.atleast_2d(np.asarray(value(rate.numbers)))
    found.figures["learned_rates"] = Rates(
        "Learned rates per leaf and step.", tuple(names(learner.objective, learner.learn)), table.T
    )
