"""One training seed of `metatower compare`: contestants are trained, tuned and judged, and what is done stays so."""

import dataclasses
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from metatower.core import Learner
from metatower.evaluation import comparison as judging
from metatower.evaluation.comparison import Measured, Sizes
from metatower.recipes import feature_baselines, run
from metatower.recipes.compare_plan import Asked, Planned
from metatower.recipes.families import FAMILIES, base_recipe, family_recipe
from metatower.recipes.grounds import Ground
from metatower.recipes.maml_baselines import START
from metatower.training.failure import NonFinite
from metatower.training.files import make_folder, new_folder, read_json, write_json
from metatower.training.loop import train
from metatower.training.progress import Progress
from metatower.training.runtime import forget_programs
from metatower.training.store import load_arrays, save_arrays

TUNED, SCHEDULED = "pooled MAML + K", "pooled MAML + K, tuned schedule"


@dataclass
class Contest:
    """Who takes part."""

    contestants: dict[str, Learner] = field(default_factory=dict)
    """Each a learner of storey 1: its `adapt` makes a whole run on a distribution."""
    parents: dict[str, str] = field(default_factory=dict)
    """The family that a contestant belongs to, for those that belong to one."""
    chosen: str = ""
    """What was tuned to what, in a sentence."""
    failed: dict[str, str] = field(default_factory=dict)
    """Who stopped being finite in training, and where."""


def one_seed(
    asked: Asked, planned: Planned, where: Ground, seed: int, folder: Path, show: Progress
) -> tuple[dict[tuple[str, str], Measured], Contest]:
    """What every contestant of a seed did, by name and split, and who they are."""
    contest, options = Contest(), _options(planned, seed)
    base = base_recipe(where, **options)
    base._start(make_folder(folder), show)
    _families(contest, planned, where, options, folder, show)
    show.note(f"seed {seed}: baselines")
    _baselines(contest, planned, where, base, folder, show)
    return _judged(contest, asked, planned, where, base, folder, show), contest


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-").replace("--", "-")


def _options(planned: Planned, seed: int) -> dict[str, Any]:
    """What the recipes of all contestants are given."""
    return {
        "seed": seed,
        "wide": planned.far,
        "pooled_steps": planned.pooled_steps,
        "pooled_extra": planned.pooled_total - planned.pooled_steps,
        "feature_steps": planned.head_start,
        "feature_extra": max(0, planned.heads.get(feature_baselines.PROTOTYPES, 0) - planned.head_start),
        "searched": planned.searched,
        "searched_on": planned.tuned_on,
        "tuned_on": planned.tuned_on,
        "episodes": planned.episodes,
        "final_judged": planned.judged,
    }


def _families(contest: Contest, planned: Planned, where: Ground, options: dict, folder: Path, show: Progress) -> None:
    for number, (name, steps) in enumerate(planned.steps.items()):
        words = f"{name} (family {number + 1} of {len(planned.steps)}), {steps:,} steps"
        show.note(f"seed {options['seed']}: {words}")
        recipe = family_recipe(name, where, **{**options, "steps": steps, **planned.lowered.get(name, {})})
        place = folder / name
        if not (place / "baselines").exists():
            make_folder(place)
            with new_folder(place / "baselines") as temporary:
                shutil.copytree(folder / "baselines" / START, temporary / START)
        forget_programs()
        try:
            artefact = _trained(recipe, name, place, run.CONFIG if where.rebuilds else "meta.json", show)
        except NonFinite as error:
            _left_out(contest, name, options["seed"], error, FAMILIES[name].by_features, show)
            continue
        ours, *ablations = recipe.compared(artefact, place, show).items()
        contest.contestants[name] = ours[1]
        contest.contestants |= {f"{name}: {what}": learner for what, learner in ablations}
        contest.parents |= {name: name, **{f"{name}: {what}": name for what, _ in ablations}}


def _left_out(contest: Contest, name: str, seed: int, error: NonFinite, by_features: bool, show: Progress) -> None:
    """Remembers who could not be trained, so that the page says it."""
    perhaps = " (A classifier by features needs examples of every class in each support set.)" if by_features else ""
    contest.failed[name] = f"{name} is in no table. Seed {seed}: {error}{perhaps}"
    show.note(contest.failed[name])


def _trained(recipe: Any, name: str, folder: Path, record: str, show: Progress) -> Learner:
    """The artefact of a recipe, from its file if it has been trained; `record` is the JSON file beside that."""
    learner, data = recipe.build()
    if not (folder / run.MODEL).exists():
        # from here on the tower with its start: what storey 2 does not learn is in no state, and the artefact needs it
        learner = recipe.begin(learner, folder, show)
        state = train(
            learner,
            data,
            steps=recipe.steps,
            seed=recipe.seed,
            folder=folder / "training",
            config={"recipe": recipe.name, "options": recipe.options()},
            title=name,
            show=show,
        )
        with new_folder((folder / run.MODEL).parent) as temporary:
            model = recipe.finish(recipe.artefact(learner, state), show)
            save_arrays(temporary / Path(run.MODEL).name, model, run.describe(recipe), record=record)
    like = eqx.filter_eval_shape(lambda: recipe.artefact(learner, learner.start(key=jax.random.key(0))))
    return load_arrays(folder / run.MODEL, like, record=record)[0]


def _baselines(contest: Contest, planned: Planned, where: Ground, base: Any, folder: Path, show: Progress) -> None:
    usual = base.baselines(folder, show)
    rates, found = base._chosen(folder, show)
    pooled = base._pooled(planned.pooled_total, folder, show)
    usual[SCHEDULED], schedule = base._scheduled_pooled(pooled, rates, show, folder)
    net = where.features and where.features(base.seed)
    for name, steps in planned.heads.items():
        forget_programs()
        try:
            head = feature_baselines.pooled(base, name, net, steps, folder, show)
        except NonFinite as error:
            _left_out(contest, name, base.seed, error, True, show)
        else:
            usual |= {name: head, f"{name} + K": feature_baselines.then_k(base, name, head, folder, show)[0]}
    contest.contestants |= usual
    contest.chosen = (
        f"Seed {base.seed}: pooled MAML runs with outer rate {rates[0]:g} and momentum {rates[1]:g}, its schedule "
        f"starts at {schedule[0]:g} times that rate and ends at {schedule[1]:.3g} times where it starts; random search "
        f"chose {found[0]:.3g} and {found[1]:.3g}."
    )


def _judged(
    contest: Contest, asked: Asked, planned: Planned, where: Ground, base: Any, folder: Path, show: Progress
) -> dict[tuple[str, str], Measured]:
    sizes = Sizes(base.meta_steps, planned.episodes, planned.far, planned.judged, planned.far)
    jobs = [(name, split) for split in where.judged for name in contest.contestants]
    measured = {}
    for number, (name, split) in enumerate(jobs):
        path = folder / "judged" / f"{slug(name)}-{slug(split)}.json"
        if not path.exists():
            forget_programs()
            # the longest runs take most of the time; how ablations fare so far beyond their run is nobody's question
            parent = contest.parents.get(name)
            far = parent == name or (name == TUNED if asked.quick else parent is None)
            each = judging.measure(
                contest.contestants[name],
                where.splits[where.judged[split]],
                sizes if far else dataclasses.replace(sizes, far_episodes=0),
                seed=base.seed,
                show=show,
                title=f"judging {number + 1} of {len(jobs)}: {name}",
            )
            make_folder(path.parent)
            write_json(path, {"curves": each.curves, "far": each.far})
        measured[name, split] = _read(path)
    return measured


def _read(path: Path) -> Measured:
    content = read_json(path, ("curves", "far"))
    arrays = {
        part: values and {name: np.asarray(each, np.float64) for name, each in values.items()}
        for part, values in content.items()
    }
    return Measured(arrays["curves"], arrays["far"])
