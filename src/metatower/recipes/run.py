"""One run of a recipe in its folder: train, keep the artefact, judge it, draw, report. Every stage is done once."""

import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

from metatower.core import Learner
from metatower.core.errors import UserError, resume_command
from metatower.evaluation import report
from metatower.evaluation.conclusion import Conclusion
from metatower.recipes.base import Recipe
from metatower.recipes.shipped import folder_of
from metatower.training import checkpoint
from metatower.training.files import clean, make_folder, new_folder, read_json, sole_user, to_json, write_json
from metatower.training.loop import train
from metatower.training.processes import all_have
from metatower.training.progress import Progress, Silent
from metatower.training.store import load_arrays, save_arrays

CONFIG, MODEL, CONCLUSION, SUMMARY, ELAPSED = (
    "config.json", "model/model.safetensors", "conclusion.json", "summary.json", "elapsed.json",
)  # fmt: skip


def execute(
    recipe: Recipe,
    folder: Path,
    show: Progress | None = None,
    *,
    checkpoint_every_seconds: float = 30.0,
    began: float | None = None,
) -> dict[str, Any]:
    """Runs a recipe in `folder`, or continues it there, and gives its summary.

    Stages: `config.json`; training (`metrics.jsonl`, `checkpoint-<step>/`); `model/`; `conclusion.json` (the artefact
    judged beside its baselines); `plots/` and `report.html`; and last `summary.json`, whose presence says that the
    run is complete. A stage whose files are there is not done again. However often it is stopped, the final files
    are the same to the last bit, but for the `seconds` of the summary, which add up over all sessions.

    Args:
        recipe, folder, show: what to run, where, and who is told how far it is.
        checkpoint_every_seconds: wall time between checkpoints.
        began: when the work began, by `time.monotonic()`, if it was before this call.

    Raises:
        UserError: the folder holds another run, or cannot be written.
        Interrupted: Ctrl-C or SIGTERM while training; KeyboardInterrupt elsewhere.
    """
    began = time.monotonic() if began is None else began
    show = Silent() if show is None else show
    if is_finished(folder):
        check_config(recipe, folder)
        if (folder / MODEL).exists():
            _check_model(recipe, folder)
        return read_json(folder / SUMMARY)
    # what can be refused is refused before anything is written
    check_config(recipe, folder)
    learner, data = recipe.build()
    config = describe(recipe)
    if not all_have(to_json([config["recipe"], config["options"], config["data"]])):
        raise UserError(
            "The processes of this run differ in their options or in the pictures they read (other fonts, or another "
            "version of what draws them). Start all with the same command, on machines with the same files."
        )
    make_folder(folder)
    if not (folder / CONFIG).exists():
        write_json(folder / CONFIG, config)
    _check_data(config, folder)
    with stopwatch(folder, began) as seconds:
        if not (folder / MODEL).exists():
            learner = recipe.begin(learner, folder, show)
            state = train(
                learner,
                data,
                steps=recipe.steps,
                seed=recipe.seed,
                folder=folder,
                config=_decides(recipe),
                title=recipe.name,
                show=show,
                checkpoint_every_seconds=checkpoint_every_seconds,
            )
            with new_folder((folder / MODEL).parent) as temporary:
                model = recipe.finish(recipe.artefact(learner, state), show)
                save_arrays(temporary / Path(MODEL).name, model, config, record=CONFIG)
        with sole_user(folder):
            clean(folder)
            if not (folder / CONCLUSION).exists():
                # the artefact as it will be loaded, so that what is judged is what is kept
                recipe.conclude(load(folder), folder, show).save(folder / CONCLUSION)
            drawn = report.draw(folder)
            summary = {
                "recipe": recipe.name,
                "seconds": round(seconds(), 1),
                "seed": recipe.seed,
                **Conclusion.load(folder / CONCLUSION).summary(),
            }
            report.write(folder, drawn, summary, about=recipe.about(), use=recipe.use)
            write_json(folder / SUMMARY, summary)
    return read_json(folder / SUMMARY)


def describe(recipe: Recipe) -> dict[str, Any]:
    """What `config.json` holds."""
    return {
        "recipe": recipe.name,
        "options": recipe.options(),
        "versions": checkpoint.versions(),
        "seed": recipe.seed,
        "data": recipe.fingerprint(),
    }


def is_finished(folder: Path) -> bool:
    """Whether a run in this folder is complete.

    Raises:
        UserError: its summary is damaged, or the folder is that of a model.
    """
    _check_is_run(folder)
    file = Path(folder) / SUMMARY
    if not file.exists():
        return False
    summary = read_json(file)
    kinds = {"recipe": str, "seconds": int | float, "seed": int, "results": list}
    if wrong := [name for name, kind in kinds.items() if not isinstance(summary.get(name), kind)]:
        raise UserError(
            f"{file} is damaged: it has no {wrong[0]!r}. Delete it, and `{resume_command(folder)}` writes it again."
        )
    return True


def _check_is_run(folder: Path) -> None:
    """Raises UserError if this is the folder of a model, in which a run would write over it."""
    if (Path(folder) / Path(MODEL).name).exists():
        raise UserError(
            f"{folder} is the folder of a model, and not of the run that made it. `metatower evaluate {folder}` judges "
            "the model; `diagnose` needs a folder --out for what it finds."
        )


def recipe_of(folder: Path) -> Recipe:
    """The recipe, with all its options, that a run or model folder was made with.

    Raises:
        UserError: no such folder, no run in it, or a recipe that this version does not have.
    """
    from metatower.recipes import find

    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. `metatower train` makes one under runs/.")
    if not (folder / CONFIG).exists():
        raise UserError(f"{folder} holds no run: it has no {CONFIG}. Give the folder that `metatower train` made.")
    config = read_json(folder / CONFIG)
    if not isinstance(config.get("recipe"), str) or not isinstance(config.get("options"), dict):
        raise UserError(f"{folder / CONFIG} is not the configuration of a run: it names no recipe and options.")
    return find(config["recipe"]).with_options(config["options"])


def check_config(recipe: Recipe, folder: Path) -> None:
    """Refuses a folder that holds something else than a run of exactly this recipe.

    Raises:
        UserError: another recipe, other options, or files that are not of a run.
    """
    if not (folder / CONFIG).exists():
        if folder.is_dir() and any(not each.name.startswith(".") for each in folder.iterdir()):
            raise UserError(f"{folder} is not empty and holds no run. Choose another folder with --out.")
        return
    there = recipe_of(folder)
    if type(there) is not type(recipe):
        raise UserError(f"{folder} holds a run of {there.name}, not of {recipe.name}. Choose another --out.")
    mine, theirs = recipe.options(), there.options()
    other = [f"{name} = {theirs[name]} (now {mine[name]})" for name in mine if mine[name] != theirs[name]]
    if other:
        raise UserError(
            f"{folder} holds a run with other options: {', '.join(other)}. Choose another --out, or continue that "
            f"one with `{resume_command(folder)}`."
        )


def _check_data(config: dict[str, Any], folder: Path) -> None:
    """Refuses to continue a run when what it reads has changed since it began."""
    before = read_json(folder / CONFIG).get("data")
    if before is not None and before != config["data"]:
        raise UserError(
            f"The pictures that the run in {folder} reads are not those it began with (other fonts, or another version "
            "of what draws them), so it cannot be continued to the same result. Put these back as they were, or train "
            "again with another --out."
        )


def _check_model(recipe: Recipe, folder: Path) -> None:
    """Refuses a run whose model is of another recipe or other options than the run is."""
    model = recipe_of((folder / MODEL).parent)
    if type(model) is not type(recipe) or model.options() != recipe.options():
        raise UserError(
            f"{folder / CONFIG} and the one beside its model differ: one of them was changed. Put it right again, or "
            "train again with another --out."
        )


def load(path: Path | str) -> Learner:
    """The trained learner of a run folder, of a copy of its `model` folder, or of a model that comes with the package.

    No code is run from the files.

    Raises:
        UserError: missing, unfinished, truncated, foreign or changed files.
    """
    run = folder = folder_of(Path(path))
    if (folder / MODEL).exists():
        folder = (folder / MODEL).parent
    recipe = recipe_of(folder)
    file = folder / Path(MODEL).name
    if not file.exists():
        raise UserError(f"{folder} holds no trained model yet. Finish its training with `{resume_command(folder)}`.")

    def build():
        learner = recipe.learner()
        return recipe.artefact(learner, learner.start(key=jax.random.key(0)))

    with recipe.building():
        like = eqx.filter_eval_shape(build)
    learner, _ = load_arrays(file, like, record=CONFIG)
    if run != folder and (run / CONFIG).exists():
        _check_model(recipe_of(run), run)
    return learner


def _decides(recipe: Recipe) -> dict[str, Any]:
    """What decides the bits of the training, apart from seed and steps."""
    return {"recipe": recipe.name, "options": recipe.options()}


@contextmanager
def stopwatch(folder: Path, began: float, every: float = 1.0):
    """Counts the seconds spent in `folder` over all sessions, also those that were killed.

    Args:
        folder: where they are noted.
        began: when this session began, by `time.monotonic()`.
        every: seconds from note to note.

    Yields:
        A function that gives the seconds so far.
    """
    path = folder / ELAPSED
    before = 0.0
    with suppress(UserError, KeyError, TypeError, ValueError):
        before = float(read_json(path)["seconds"])
    ended = threading.Event()

    def seconds() -> float:
        return before + time.monotonic() - began

    def note() -> None:
        with suppress(UserError):  # a full disk is reported by those whose files matter
            write_json(path, {"seconds": seconds()})

    def keep_noting() -> None:
        note()
        while not ended.wait(every):
            note()

    # a killed process cannot say goodbye, so the time is noted as it passes
    watcher = threading.Thread(target=keep_noting, daemon=True)
    watcher.start()
    try:
        yield seconds
    finally:
        ended.set()
        watcher.join()
        note()
