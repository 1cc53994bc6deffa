"""A trained learner judged on other tasks than those of its recipe: what `metatower evaluate` does."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Learner, Tasks
from metatower.core.errors import UserError
from metatower.evaluation.conclusion import Conclusion
from metatower.evaluation.episodes import Fixed, evaluate, judged_on, scores_after
from metatower.evaluation.norms import in_every_mode
from metatower.learners.features import FeatureLearner
from metatower.nets import Examples, norms
from metatower.recipes.base import Recipe
from metatower.recipes.run import load, recipe_of
from metatower.recipes.shipped import folder_of
from metatower.training.progress import Progress, Silent

HELD_OUT, FOLDER = "held-out", "folder:"
IMAGES = ("glyphs", "omniglot", "omniglot-one-shot", "glyph-families")
ONE_SHOT = "omniglot-one-shot"
_KEPT_BACK = {
    "vinyals": "It was trained on Omniglot: these are the test characters of its split, by Vinyals et al.",
    "alphabets": "All are of the 20 evaluation alphabets, of which it has seen none in training.",
}
FRESH = 0x5EED0000
"""Added to the seed, so that a run's own judgement, which has the same seed, has seen none of these tasks."""
FUNCTIONS = ("sinusoids", "functions", "function-families")


@dataclass(frozen=True)
class Takes:
    """What a model was trained to take."""

    height: int
    """0: it learns tasks; 1: it learns how to learn the tasks of a distribution."""
    shape: tuple[int, ...]
    """Of one input."""
    classes: bool
    """Whether targets are classes, not numbers."""
    ways: int | None
    shots: int
    queries: int
    most: int | None
    """Classes that it can tell apart; None if any number, or if targets are numbers."""

    @property
    def size(self) -> int:
        """Pixels along a side of its pictures."""
        if not self.classes or len(self.shape) < 2 or self.shape[0] != self.shape[1]:
            raise UserError(f"This model takes inputs of shape {self.shape}, not square pictures.")
        return self.shape[0]


def judge(
    folder: Path,
    *,
    tasks: str = HELD_OUT,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    episodes: int | None = None,
    seed: int = 0,
    show: Progress | None = None,
) -> Conclusion:
    """The learner of a run, before and after it has adapted to tasks that it was not trained on.

    Args:
        folder: of the run, or a copy of its model, or the name of one that comes with the package.
        tasks: "held-out", "glyphs", "omniglot", "omniglot-one-shot", "folder:PATH", "sinusoids", "functions",
            "glyph-families" or "function-families".
        ways, shots, queries: of the tasks; as in training if None.
        episodes: tasks, or whole runs for a learner of storey 1; 1000 or 50 if None.
        seed: chooses the tasks.

    Raises:
        UserError: no such model or tasks, or they do not fit each other.
    """
    for name, number in (("ways", ways), ("shots", shots), ("queries", queries), ("episodes", episodes)):
        if number is not None and number < 1:
            raise UserError(f"Expected --{name} of at least 1, got {number}.")
    if not 0 <= seed < 2**32:
        raise UserError(f"Expected --seed from 0 to 2**32 - 1, got {seed}.")
    fresh, show = (seed + FRESH) % 2**32, show or Silent()
    folder = folder_of(Path(folder))
    recipe, learner = recipe_of(folder), load(folder)
    if recipe.judges_itself:
        if tasks != HELD_OUT or ways or shots or queries:
            raise UserError(
                f"A model of {recipe.name} acts in worlds, or on problems of its own: it has no --tasks, --ways, "
                "--shots or --queries."
            )
        return recipe.judge_fresh(learner, episodes=episodes, seed=fresh, show=show)
    takes = _takes(learner, recipe.shaped())
    if ways is not None and takes.ways is None:
        raise UserError("--ways is for models that tell classes apart; this one predicts numbers.")
    if ways is not None and takes.most is not None and ways > takes.most:
        raise UserError(
            f"This model tells {takes.most} classes apart, and {ways} ways were asked for. Ask for at most "
            f"{takes.most}, or train one with more."
        )
    given: dict[str, Any] = {"ways": ways, "shots": shots, "queries": queries}
    given = {name: number for name, number in given.items() if number is not None}
    try:
        source, unit, words = _source(tasks, dataclasses.replace(takes, **given), recipe, given, seed)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    inputs = _examples(source)[0].x.shape[1:]
    if inputs != takes.shape:
        raise UserError(f"This model takes inputs of shape {takes.shape}, and the tasks {tasks} have {inputs}.")
    if episodes is None:
        episodes = 1000 if takes.height == 0 else 50
    final = getattr(recipe, "final_judged", None)
    learner = judged_on(learner, final) if takes.height and final else learner
    # before its one step a learner of features has no answers
    steps = (learner.steps,) if isinstance(learner, FeatureLearner) else range(learner.steps + 1)
    how: dict[str, Any] = {"episodes": episodes, "seed": fresh, "show": show}
    scores = scores_after(learner, source, steps, title=f"judging on {tasks}", **how)
    conclusion = Conclusion(notes=[words, _what_adapting_is(learner, takes)])
    kind = "meta-step" if takes.height else "step"
    after, before = f"after {learner.steps} {kind}{'s' * (learner.steps != 1)}", "before adaptation"
    conclusion.add(after, {name: values[:, -1] for name, values in scores.items()}, unit)
    if not isinstance(learner, FeatureLearner):
        conclusion.add(before, {name: values[:, 0] for name, values in scores.items()}, unit)
        conclusion.compare(after, before)
    if not takes.height:
        _other_modes(conclusion, learner, source, after, how)
    return conclusion


def _other_modes(conclusion: Conclusion, learner: Learner, source: Tasks, after: str, how: dict[str, Any]) -> None:
    """The same learner on the same tasks, its norms in other modes: what they give away."""
    mine = {norm.mode for norm in norms(learner)}
    if mine:
        conclusion.notes.append(f"Norms in the mode {' and '.join(sorted(mine))}; beside it, in the other modes.")
    for mode, each in in_every_mode(learner).items():
        if {mode} != mine:
            name = f"{after}, norms {mode}"
            conclusion.add(name, evaluate(each, source, title=name, **how), "task")
            conclusion.compare(after, name)


def _what_adapting_is(learner: Learner, takes: Takes) -> str:
    if takes.height == 0:
        return f"Each task: {learner.steps} step(s) on its support set, judged on its query set."
    objective = getattr(learner, "objective", None)
    batch, judged = getattr(objective, "batch", None), getattr(objective, "judged", None)
    on = f" of {batch} tasks each" if batch else ""
    of = f"{judged or batch} tasks" if batch else "tasks"
    return (
        f"Each run: the learned start, {learner.steps} meta-steps{on} on one part of the distribution, then judged on "
        f"{of} of the other part, which shares no class with the first where there are classes."
    )


def _source(name: str, takes: Takes, recipe: Recipe, given: dict[str, int], seed: int) -> tuple[Tasks, str, str]:
    """The tasks, the unit of replication, and what they are in words."""
    if takes.height > 1:
        raise UserError(f"`evaluate` judges models of storeys 0 and 1; this one stands on storey {takes.height}.")
    if name == HELD_OUT:
        fixed = [option for option in given if not hasattr(recipe, option)]
        if fixed:
            raise UserError(f"The held-out tasks of {recipe.name} have no --{fixed[0]} to choose. Try other --tasks.")
        held_out = dataclasses.replace(recipe, **given).held_out()
        return held_out, "distribution" if takes.height else "task", "The recipe's own held-out tasks."
    if name in FUNCTIONS:
        return _functions(name, takes)
    if name == FOLDER:
        raise UserError("Expected the name of a folder after `folder:`, as in --tasks folder:my/photos.")
    if name.startswith(FOLDER):
        return _own_pictures(Path(name.removeprefix(FOLDER)).expanduser(), takes, "queries" in given, seed)
    if name in IMAGES:
        # of Omniglot only what a recipe that trains on it has kept back
        scheme = "vinyals" if getattr(recipe, "on", None) == "omniglot" else "alphabets"
        if name == ONE_SHOT:
            return _one_shot(takes, given, scheme)
        return _pictures(name, takes, "queries" in given, scheme)
    raise UserError(
        f"There are no tasks {name!r}. Choose from {', '.join((HELD_OUT, *IMAGES, *FUNCTIONS))}, or folder:PATH."
    )


def _functions(name: str, takes: Takes) -> tuple[Tasks, str, str]:
    from metatower.tasks.functions import FunctionFamily, Sinusoids
    from metatower.tasks.pooled import Pooled

    if takes.classes:
        raise UserError(f"This model tells classes apart, and {name} are functions. Try --tasks glyphs.")
    if name == "sinusoids":
        waves = Sinusoids(takes.shots, takes.queries)
        words = "Sine waves, amplitude 0.1 to 5, phase 0 to pi, x from -5 to 5."
        return (Fixed(waves, waves), "run", words) if takes.height else (waves, "task", words)
    family = FunctionFamily(shots=takes.shots, queries=takes.queries)
    words = f"Functions of the kinds {', '.join(family.kinds)}"
    if takes.height:
        return family, "distribution", f"{words}: a distribution has one kind, frequency, offset, shift and noise."
    return Pooled(family), "task", f"{words}, mixed."


def _one_shot(takes: Takes, given: dict[str, int], scheme: str) -> tuple[Tasks, str, str]:
    from metatower.tasks.one_shot import WAYS, one_shot_runs

    if takes.height or len(takes.shape) != 2:
        raise UserError(f"{ONE_SHOT} is for models of storey 0 that take grey pictures.")
    if given.get("shots", 1) != 1 or given.get("queries", 1) != 1:
        raise UserError(f"{ONE_SHOT} has one picture of each class to learn from and one to be judged on.")
    ways = given.get("ways", min(WAYS, takes.most or WAYS))
    tasks, alphabets = one_shot_runs("test", scheme, ways=ways, size=takes.size)
    words = (
        f"Omniglot, {tasks.ways} characters of one alphabet, one drawing of each by one person to learn from and one "
        f"by another to be judged on, of {', '.join(alphabets)}. {_KEPT_BACK[scheme]}"
    )
    return tasks, "task", words


def _pictures(name: str, takes: Takes, queries_given: bool, scheme: str) -> tuple[Tasks, str, str]:
    from metatower.tasks.arrays import resized
    from metatower.tasks.episodes import Episodes
    from metatower.tasks.glyph_families import glyph_family, script_family
    from metatower.tasks.glyphs import LEAST_FONTS, SPLITS, glyphs
    from metatower.tasks.omniglot import DRAWINGS, alphabet_family, omniglot
    from metatower.tasks.pooled import Pooled

    size = takes.size
    if len(takes.shape) != 2:
        raise UserError(f"This model takes colour pictures, and {name} are grey. Give yours with --tasks folder:PATH.")
    scripts = ", ".join(SPLITS["test"])
    layout: dict[str, Any] = {"ways": takes.ways, "shots": takes.shots, "queries": takes.queries}
    if name == "glyph-families":
        family = glyph_family("test", size=size, **layout)
        words = f"Glyph tasks from the scripts {scripts}; what counts as the class belongs to the distribution."
        return (family, "distribution", words) if takes.height else (Pooled(family), "task", f"{words} Mixed.")
    if takes.height and name == "glyphs":
        return (
            script_family("test", size=size, **layout),
            "distribution",
            f"Letters of one script of {scripts}, in one transform.",
        )
    if takes.height:
        words = "Omniglot's 20 evaluation alphabets: a distribution is the letters of one alphabet in one transform."
        layout["queries"] = _queries(takes, queries_given, DRAWINGS)
        return alphabet_family("test", size=size, drawings=DRAWINGS, **layout), "distribution", words
    if name == "glyphs":
        layout["queries"] = _queries(takes, queries_given, LEAST_FONTS)  # every letter has so many, and few have more
        letters = glyphs().select(SPLITS["test"], min_fonts=takes.shots + layout["queries"])
        episodes = Episodes(resized(letters.images, size), letters.count, **layout)
        return episodes, "task", f"{episodes.classes} letters of the scripts {scripts}."
    layout["queries"] = _queries(takes, queries_given, DRAWINGS)
    episodes = omniglot("test", scheme, rotations=False, size=size, **layout)
    return episodes, "task", f"{episodes.classes} letters of Omniglot, upright. {_KEPT_BACK[scheme]}"


def _queries(takes: Takes, given: bool, pictures: int) -> int:
    """Queries of each class: as asked for, else as in training or as many as so many pictures allow."""
    return takes.queries if given else min(takes.queries, max(1, pictures - takes.shots))


def _own_pictures(folder: Path, takes: Takes, queries_given: bool, seed: int) -> tuple[Tasks, str, str]:
    from metatower.tasks.arrays import from_arrays, read_folder

    images, labels, names = read_folder(folder, size=takes.size, grey=len(takes.shape) == 2)
    counts = np.bincount(labels)
    queries = _queries(takes, queries_given, int(counts.min()))
    layout: dict[str, Any] = {"ways": takes.ways, "shots": takes.shots, "queries": queries}
    where = f"{len(images):,} pictures of {len(names)} classes in {folder}, resized to {takes.size} x {takes.size}"
    if not takes.height:
        return from_arrays(images, labels, names=names, **layout), "task", f"{where}."
    least = 2 * layout["ways"]
    if len(names) < least:
        raise UserError(
            f"A model of storey 1 is run on some classes and judged on others: {takes.ways} ways need at least "
            f"{least} classes, and {folder} has {len(names)}. Ask for fewer ways, or add classes."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    parts = []
    for part in np.array_split(order, 2):
        keep = np.isin(labels, part)
        parts.append(from_arrays(images[keep], labels[keep], names=[names[i] for i in np.sort(part)], **layout))
    return Fixed(*parts), "run", f"{where}: half of the classes to run on, the others to be judged on."


def _takes(learner: Learner, like: Tasks) -> Takes:
    examples, layout = _examples(like)
    if layout is None:
        raise UserError(f"The tasks of this model, {type(like).__name__}, do not say how many shots they have.")
    classes = not jnp.issubdtype(examples.y.dtype, jnp.floating)
    ways = getattr(layout, "ways", None)
    most = None if isinstance(learner, FeatureLearner) else ways
    return Takes(learner.height, examples.x.shape[1:], classes, ways, layout.shots, layout.queries, most)


def _examples(tasks: Tasks) -> tuple[Examples, Any]:
    """The shapes of what a learner of storey 0 sees of these tasks, and what says how many shots they have."""
    layout = None
    while not isinstance(tasks, Examples):
        # tasks say so themselves, or have a layout that does
        here = (each for each in (tasks, getattr(tasks, "layout", None)) if hasattr(each, "shots"))
        layout = layout or next(here, None)
        tasks = eqx.filter_eval_shape(lambda tasks: tasks.sample(jax.random.key(0)).support, tasks)
    return tasks, layout
