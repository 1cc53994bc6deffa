"""The families of meta-meta-learning and their baselines at equal compute: what `metatower compare meta-meta` does."""

import dataclasses
import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from metatower.core import Learner
from metatower.core.errors import UserError
from metatower.core.plan import step_flops
from metatower.evaluation import comparison as judging
from metatower.evaluation import comparison_page
from metatower.evaluation.comparison import Measured, Sizes
from metatower.recipes import run
from metatower.recipes.families import COMMON, FAMILIES, Family, recipe_for
from metatower.recipes.maml_baselines import START
from metatower.recipes.optimised_maml_functions import OptimisedMAMLFunctions
from metatower.recipes.own_family import OwnFamily, read
from metatower.tasks.pooled import Pooled
from metatower.training.failure import NonFinite
from metatower.training.files import make_folder, new_folder, read_json, sole_user, write_json
from metatower.training.loop import train
from metatower.training.progress import Progress
from metatower.training.runtime import forget_programs
from metatower.training.store import load_arrays, save_arrays

FUNCTIONS = "functions"
PLAN, RESULT = "plan.json", "comparison.json"
TUNED, LONGER = "pooled MAML + K", "pooled MAML + 5K"
PROTOTYPES = "Prototypical Network, pooled"
SCHEDULED = "pooled MAML + K, tuned schedule"
START_SHARE = 0.2
"""Of the compute of a family, what its start, pooled MAML, takes of it where it has one."""
SETTING_UP, COMPILING = 25.0, 40.0
"""Seconds that are kept for compiling: once, and for each family."""
MARGIN = 0.8
"""Of the time that is left, what is planned with."""
QUICK, FULL = (24, 12, 24, 32), (48, 24, 48, 64)
"""Validation distributions for tuning, held-out ones for runs of 10 K, held-out ones, and tasks of each to judge on.

As many as in the second place are worked on at the same time, always: other numbers are other programs to compile."""
SLOWER_RUNS = 2.0
"""Time per floating-point operation of runs that are only judged, against pooled MAML."""


@dataclass(frozen=True)
class Asked:
    """What is to be compared."""

    families: str = FUNCTIONS
    """"functions", or the path of a Python file."""
    only: tuple[str, ...] = ()
    """Names from `FAMILIES`, all if empty."""
    seeds: tuple[int, ...] = (0,)
    minutes: float = 25.0
    """Wall time on two idle cores, all seeds together."""
    quick: bool = False
    """Judge on fewer distributions."""

    def check(self) -> None:
        """Refuses what cannot be, in a sentence (`UserError`)."""
        unknown = sorted(set(self.only) - set(FAMILIES))
        if unknown:
            raise UserError(f"There is no family {unknown[0]!r}. Choose from {', '.join(FAMILIES)}.")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise UserError(f"Expected --seeds as different numbers, got {' '.join(map(str, self.seeds))}.")
        if not all(0 <= seed < 2**32 for seed in self.seeds):
            raise UserError(f"Expected --seeds from 0 to 2**32 - 1, got {' '.join(map(str, self.seeds))}.")
        if not (np.isfinite(self.minutes) and self.minutes > 0):
            raise UserError(f"Expected --budget as minutes above 0, got {self.minutes:g}.")

    def chosen(self, own: OwnFamily | None) -> dict[str, Family]:
        """The families that take part: those that are asked for, and can use the network of one's own file.

        Raises:
            UserError: none of them can.
        """
        asked = {name: each for name, each in FAMILIES.items() if not self.only or name in self.only}
        given = own is not None and own.build is not None
        fits = {name: each for name, each in asked.items() if each.any_network or not given}
        if not fits:
            raise UserError(
                f"{self.families} gives the network (`objective`), and {', '.join(asked)} makes its own. Leave "
                "`objective` out, or compare other families."
            )
        return fits


@dataclass(frozen=True)
class Planned:
    """How long each trains, so that all have the same compute; made once, and kept in `plan.json`."""

    flops: float
    """Floating-point operations that each contestant's training may take, its start included."""
    pooled_steps: int
    """Steps of pooled MAML from which the families set out."""
    pooled_total: int
    """Steps of pooled MAML as a baseline."""
    searched: int
    """Candidates of random search."""
    steps: dict[str, int]
    """Storey-2 steps of each family."""
    evaluations: dict[str, int | None]
    """Base-learner gradient evaluations of each training; None where the tower does not tell."""
    tuned_on: int
    """Validation distributions that each candidate of a tuning is tried on."""
    far: int
    """Held-out distributions on which runs of 10 K steps are judged."""
    episodes: int
    """Held-out distributions of each kind, and for each seed."""
    judged: int
    """Tasks of each of them that a run is judged on."""


def compare(asked: Asked, folder: Path, show: Progress, command: str) -> dict[str, Any]:
    """Trains, judges and compares in `folder`, or goes on there, and gives what `comparison.json` holds.

    Every training and every judgement has a file of its own, and what has one is not done again: after any kind of
    end the same call goes on.

    Raises:
        UserError: what is asked cannot be, or the folder is of another comparison.
        Interrupted: Ctrl-C or SIGTERM while training.
    """
    asked.check()
    own = None if asked.families == FUNCTIONS else read(Path(asked.families))
    make_folder(folder)
    with sole_user(folder), run.stopwatch(folder) as seconds:
        planned = _planned(asked, own, folder, show)
        found: dict[tuple[str, str], list[Measured]] = {}
        parents: dict[str, str] = {}
        chosen: list[str] = []
        for number, seed in enumerate(asked.seeds):
            show.note(f"seed {seed} ({number + 1} of {len(asked.seeds)})")
            each, parent, words = _one_seed(asked, planned, own, seed, folder / f"seed-{seed}", show)
            for where, measured in each.items():
                found.setdefault(where, []).append(measured)
            parents |= parent
            chosen.append(words)
        measured = {where: judging.together(each) for where, each in found.items()}
        return _concluded(asked, planned, measured, parents, chosen, seconds(), command, folder)


def _planned(asked: Asked, own: OwnFamily | None, folder: Path, show: Progress) -> Planned:
    about: dict[str, Any] = dataclasses.asdict(asked)
    about["file"] = None if own is None else hashlib.sha256(own.path.read_bytes()).hexdigest()
    about = {name: list(each) if isinstance(each, tuple) else each for name, each in about.items()}
    path = folder / PLAN
    if path.exists():
        there = read_json(path)
        other = [f"{n} = {there['asked'].get(n)} (now {about[n]})" for n in about if there["asked"].get(n) != about[n]]
        if other:
            raise UserError(f"{folder} holds another comparison: {', '.join(other)}. Choose another --out.")
        return Planned(**there["planned"])
    if any(not each.name.startswith(".") and each.name != run.ELAPSED for each in folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no comparison. Choose another folder with --out.")
    planned = _plan(asked, own, show)
    write_json(path, {"asked": about, "planned": dataclasses.asdict(planned)})
    return planned


def _plan(asked: Asked, own: OwnFamily | None, show: Progress) -> Planned:
    """Shares the time: the same number of floating-point operations for each, as this machine does them."""
    tuned_on, far, episodes, judged = QUICK if asked.quick else FULL
    base = recipe_for(OptimisedMAMLFunctions, own, seed=asked.seeds[0])
    pooled, data = base._pooled_trainer(), Pooled(base.data())
    pooled_flops = step_flops(pooled, data)
    show.note("measuring how fast this machine is …")
    train(pooled, data, steps=1, seed=0)
    began, tried = time.monotonic(), 600
    train(pooled, data, steps=tried, seed=0)
    speed = pooled_flops * tried / (time.monotonic() - began)
    meta_step = step_flops(base.trainer(), base._one_of(base.data()))
    judgement = meta_step * judged / base.meta_batch / 8  # measured: it takes no gradient of the whole
    a_run = base.meta_steps * meta_step
    families = asked.chosen(own)
    # on both kinds: runs of all contestants with the judgements of their curves, and runs ten times as long of some
    each = episodes * (a_run + (base.meta_steps + 1) * judgement)
    judging_all = (
        2 * (5 + 3 * len(families)) * each
        + 2 * ((1 if asked.quick else 4) + len(families)) * far * 10 * a_run
        + 20 * tuned_on * a_run
    )
    left = asked.minutes * 60 - SETTING_UP - COMPILING * len(families)
    left = MARGIN * max(left, 0.3 * asked.minutes * 60) / len(asked.seeds) - SLOWER_RUNS * judging_all / speed
    shares = 1 + SLOWER_RUNS + sum(family.slower for family in families.values())
    flops = max(left, 0.02 * asked.minutes * 60 / len(asked.seeds)) * speed / shares
    pooled_total = max(2, round(flops / pooled_flops))
    pooled_steps = max(1, round(START_SHARE * pooled_total))
    steps, evaluations = {}, {"pooled MAML": pooled_total * base.pooled_batch * base.inner_steps}
    for name, family in families.items():
        recipe = recipe_for(family.recipe, own, seed=asked.seeds[0], **family.options)
        one = step_flops(recipe.learner(), recipe.data())
        begun = pooled_steps if family.from_pooled else 0
        steps[name] = max(1, round((flops - begun * pooled_flops) / one))
        gradients = recipe.evaluations()
        start = begun * base.pooled_batch * base.inner_steps
        evaluations[name] = None if gradients is None else start + steps[name] * gradients
    searched = max(2, round(flops / (tuned_on * a_run)))
    met = base.meta_steps * base.meta_batch + base.judged
    evaluations["random search"] = searched * tuned_on * base.inner_steps * met
    return Planned(flops, pooled_steps, pooled_total, searched, steps, evaluations, tuned_on, far, episodes, judged)


def _one_seed(
    asked: Asked, planned: Planned, own: OwnFamily | None, seed: int, folder: Path, show: Progress
) -> tuple[dict[tuple[str, str], Measured], dict[str, str], str]:
    """What every contestant of a seed did, by name and split; the family of each; what was tuned to what."""
    options = {
        "seed": seed,
        "wide": planned.far,
        "pooled_steps": planned.pooled_steps,
        "pooled_extra": planned.pooled_total - planned.pooled_steps,
        "searched": planned.searched,
        "searched_on": planned.tuned_on,
        "tuned_on": planned.tuned_on,
        "episodes": planned.episodes,
        "final_judged": planned.judged,
    }
    base = recipe_for(OptimisedMAMLFunctions, own, **options)
    base._start(make_folder(folder), show)
    contestants: dict[str, Learner] = {}
    parents: dict[str, str] = {}
    for number, (name, steps) in enumerate(planned.steps.items()):
        family = FAMILIES[name]
        show.note(f"seed {seed}: {name} (family {number + 1} of {len(planned.steps)}), {steps:,} steps")
        recipe = recipe_for(family.recipe, own, **{**options, **family.options, "steps": steps})
        place = folder / name
        if not (place / "baselines").exists():
            make_folder(place)
            with new_folder(place / "baselines") as temporary:
                for file in (START, "meta.json"):
                    shutil.copy(folder / "baselines" / file, temporary / file)
        forget_programs()
        artefact = _trained(recipe, name, place, own, show)
        ours, *ablations = recipe.compared(artefact, place, show).items()
        contestants[name] = ours[1]
        contestants |= {f"{name}: {what}": learner for what, learner in ablations}
        parents |= {name: name, **{f"{name}: {what}": name for what, _ in ablations}}
    show.note(f"seed {seed}: baselines")
    usual = base.baselines(folder, show)
    rates, found = base._chosen(folder, show)
    pooled = base._pooled(planned.pooled_total, folder, show)
    usual[SCHEDULED], schedule = base._scheduled_pooled(pooled, rates, show, folder)
    if own is not None and own.ways:
        try:
            usual[PROTOTYPES] = base.prototypical(planned.pooled_total, folder, show)
        except NonFinite:
            show.note(f"{PROTOTYPES}: left out, as it needs examples of every class in each support set.")
    contestants |= usual
    sizes = Sizes(base.meta_steps, planned.episodes, planned.far, planned.judged, planned.far)
    splits = {label.strip(" ()"): each for label, each in base.judged_on().items()}
    jobs = [(name, split) for split in splits for name in contestants]
    measured = {}
    for number, (name, split) in enumerate(jobs):
        path = folder / "judged" / f"{_slug(name)}-{_slug(split)}.json"
        if not path.exists():
            forget_programs()
            title = f"judging {number + 1} of {len(jobs)}: {name}"
            # the longest runs take most of the time; how ablations fare so far beyond their run is nobody's question
            far = name in usual if not asked.quick else name == TUNED
            here = sizes if far or parents.get(name) == name else dataclasses.replace(sizes, far_episodes=0)
            each = judging.measure(contestants[name], splits[split], here, seed=seed, show=show, title=title)
            make_folder(path.parent)
            write_json(path, {"curves": each.curves, "far": each.far})
        measured[name, split] = _read(path)
    words = (
        f"Seed {seed}: pooled MAML runs with outer rate {rates[0]:g} and momentum {rates[1]:g}, its schedule starts at "
        f"{schedule[0]:g} times that rate and ends at {schedule[1]:.3g} times where it starts; random search chose "
        f"{found[0]:.3g} and {found[1]:.3g}."
    )
    return measured, parents, words


def _trained(recipe: Any, name: str, folder: Path, own: OwnFamily | None, show: Progress) -> Learner:
    """The artefact of a recipe, from its file if it has been trained."""
    learner, data = recipe.build()
    record = run.CONFIG if own is None else "meta.json"
    if not (folder / run.MODEL).exists():
        state = train(
            recipe.begin(learner, folder, show),
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


def _read(path: Path) -> Measured:
    content = read_json(path)
    curves = {name: np.asarray(values, np.float64) for name, values in content["curves"].items()}
    return Measured(curves, None if content["far"] is None else np.asarray(content["far"], np.float64))


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-").replace("--", "-")


def _concluded(
    asked: Asked,
    planned: Planned,
    measured: dict[tuple[str, str], Measured],
    parents: dict[str, str],
    chosen: list[str],
    seconds: float,
    command: str,
    folder: Path,
) -> dict[str, Any]:
    """Tables and figures, written to the folder."""
    splits = list(dict.fromkeys(split for _, split in measured))
    names = list(dict.fromkeys(name for name, _ in measured))
    families = FUNCTIONS if asked.families == FUNCTIONS else Path(asked.families).stem
    results, pairs, best = [], [], {}
    for split in splits:
        here = {name: measured[name, split] for name in names}
        threshold = here[TUNED].ends["loss"]
        for name in names:
            about = {
                "families": families,
                "split": split,
                "seeds": len(asked.seeds),
                "budget": _budget(name, planned, parents),
                "command": command,
            }
            for row in judging.rows(name, here[name], threshold):
                results.append({**dataclasses.asdict(row), **about})
        for name in [each for each in names if parents.get(each) == each]:
            # five times the meta-steps is no equal compute
            others = {n: m for n, m in here.items() if parents.get(n, name) == name and n not in (name, LONGER)}
            best[f"{name}, {split}"] = judging.best_of(others)
            for row in judging.differences(name, here[name], others, best[f"{name}, {split}"]):
                pairs.append({**dataclasses.asdict(row), "families": families, "split": split})
    content = {
        "command": command,
        "families": families,
        "seconds": seconds,
        "meta_steps": COMMON["meta_steps"],
        "planned": dataclasses.asdict(planned),
        "results": results,
        "paired": pairs,
        "best-baseline": best,
        "notes": chosen,
    }
    write_json(folder / RESULT, content)
    words = {name: FAMILIES[name].words for name in planned.steps}
    comparison_page.write(folder, read_json(folder / RESULT), measured, parents, words)
    return content


def _budget(name: str, planned: Planned, parents: dict[str, str]) -> int | None:
    """Base-learner gradient evaluations in the training of a contestant."""
    if name in parents and not name.endswith("frozen at its start"):
        return planned.evaluations[parents[name]]
    if name == PROTOTYPES:
        return 0
    if name.startswith("pooled MAML"):
        return planned.evaluations["pooled MAML"]
    if name == "MAML, rates from random search":
        return planned.evaluations["random search"]
    return (
        0
        if name == "default MAML"
        else (planned.evaluations["pooled MAML"] or 0) * planned.pooled_steps // planned.pooled_total
    )
