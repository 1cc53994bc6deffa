"""The families of meta-meta-learning and their baselines at equal compute: what `metatower compare meta-meta` does."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from metatower.core.errors import UserError
from metatower.evaluation import comparison as judging
from metatower.evaluation.comparison import Measured
from metatower.recipes import run
from metatower.recipes.compare_plan import Asked, Planned, plan
from metatower.recipes.compare_seed import one_seed
from metatower.recipes.compare_tables import concluded
from metatower.recipes.grounds import Ground, ground
from metatower.training.files import make_folder, read_json, sole_user, write_json
from metatower.training.progress import Progress

PLAN = "plan.json"


def compare(asked: Asked, folder: Path, show: Progress, command: str, *, began: float | None = None) -> dict[str, Any]:
    """Trains, judges and compares in `folder`, or goes on there, and gives what `comparison.json` holds.

    Every training and every judgement has a file of its own, and what has one is not done again: after any kind of
    end the same call goes on. `began` is when the work began, by `time.monotonic()`, if it was before this call.

    Raises:
        UserError: what is asked cannot be, or the folder is of another comparison.
        Interrupted: Ctrl-C or SIGTERM while training.
    """
    began = time.monotonic() if began is None else began
    asked.check()
    where = ground(asked.families)
    asked.chosen(where)  # refused before anything is written
    make_folder(folder)
    with sole_user(folder), run.stopwatch(folder, began) as seconds:
        planned = _planned(asked, where, folder, show)
        found: dict[tuple[str, str], list[Measured]] = {}
        parents: dict[str, str] = {}
        chosen: list[str] = []
        failed: dict[str, str] = {}
        for number, seed in enumerate(asked.seeds):
            show.note(f"seed {seed} ({number + 1} of {len(asked.seeds)})")
            each, contest = one_seed(asked, planned, where, seed, folder / f"seed-{seed}", show)
            for place, measured in each.items():
                found.setdefault(place, []).append(measured)
            parents |= contest.parents
            chosen.append(contest.chosen)
            failed |= contest.failed
        # one that some seed lacks is left out: seeds are paired, and those on which training goes well are no sample
        parents = {name: parent for name, parent in parents.items() if parent not in failed}
        measured = {place: judging.together(each) for place, each in found.items() if len(each) == len(asked.seeds)}
        chosen += failed.values()
        return concluded(asked, planned, where, measured, parents, chosen, seconds(), command, folder)


def _planned(asked: Asked, where: Ground, folder: Path, show: Progress) -> Planned:
    """The plan of this folder; made if there is none."""
    about: dict[str, Any] = {**dataclasses.asdict(asked), "data": where.digest}
    about = {name: list(each) if isinstance(each, tuple) else each for name, each in about.items()}
    path = folder / PLAN
    if path.exists():
        there = read_json(path, ("asked", "planned"))
        other = [f"{n} = {there['asked'].get(n)} (now {about[n]})" for n in about if there["asked"].get(n) != about[n]]
        if other:
            raise UserError(f"{folder} holds another comparison: {', '.join(other)}. Choose another --out.")
        try:
            return Planned(**there["planned"])
        except TypeError as error:
            raise UserError(
                f"{folder} holds a comparison by another version of metatower. Choose another --out."
            ) from error
    if any(not each.name.startswith(".") and each.name != run.ELAPSED for each in folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no comparison. Choose another folder with --out.")
    planned = plan(asked, where, show)
    write_json(path, {"asked": about, "planned": dataclasses.asdict(planned)})
    return planned
