"""The command line: parse, call, print."""

import dataclasses
import difflib
import math
import os
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from metatower.core.errors import UserError, resume_command
from metatower.options import (
    OVERVIEW,
    PLAN,
    TRAIN,
    Adapt,
    Compare,
    Diagnose,
    Evaluate,
    Health,
    List,
    Planning,
    Report,
    Resume,
    Training,
)
from metatower.parsing import parse, recipe_named, with_recipe

# jax and the recipes are imported where they are used: help and complaints about arguments come at once.

BEGAN = time.monotonic()
"""What a run takes is counted from here: imports and the first drawing of letters are part of the wait."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code: 0, 2 for what the user can mend, 130 for Ctrl-C."""
    try:
        code = _main(list(sys.argv[1:] if arguments is None else arguments))
    except Exception as error:
        if not _is_one_of_many():
            raise
        code = _lost(error)
    if code and _is_one_of_many():
        # at once: the ordinary end would wait for the other processes, and they for this one
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _main(arguments: list[str]) -> int:
    try:
        return _dispatch(arguments)
    except SystemExit as end:  # tyro has printed what it had to say
        return end.code if isinstance(end.code, int) else 2
    except KeyboardInterrupt:
        return _stopped(None)
    except BrokenPipeError:  # `metatower list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or error}.")
    except UserError as error:
        return _complain(str(error))
    except (MemoryError, OverflowError, RuntimeError) as error:
        if not _too_large(error):
            raise
        return _complain(
            "These options ask for more memory than there is, or for a number that no array can have. Lower the "
            "largest of them (batch, hidden, ways, episodes …); `metatower plan RECIPE` says beforehand what is needed."
        )


def _dispatch(arguments: list[str]) -> int:
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "resume": _resume,
        "evaluate": _evaluate,
        "adapt": _adapt,
        "diagnose": _diagnose,
        "health": _health,
        "report": _report,
        "plan": _plan,
        "list": _list,
        "compare": _compare,
    }
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(OVERVIEW, end="")
        return 0
    command, *rest = arguments
    if command in ("-V", "--version"):
        import importlib.metadata

        print(importlib.metadata.version("metatower"))
        return 0
    if command not in commands:
        near = difflib.get_close_matches(command, commands, n=1, cutoff=0.5)
        guess = f" Did you mean `metatower {near[0]}`?" if near else ""
        raise UserError(f"There is no command {command!r}.{guess} The commands are {', '.join(commands)}.")
    return commands[command](rest)


def _train(arguments: list[str]) -> int:
    recipe_class, rest = recipe_named(arguments, "train")
    name = recipe_class.name
    given = parse(with_recipe(recipe_class, Training), rest, f"train {name}", recipe_class.about(), TRAIN.format(name))
    recipe = given.recipe.with_absolute_paths()
    folder = (given.out or Path("runs") / f"{name}-{recipe.seed}").expanduser()

    from metatower.recipes import run

    run.check_config(recipe, folder)
    if run.is_finished(folder):
        print(f"The run in {folder} is finished already; these are its results. For another, choose --out or --seed.")
    elif (folder / run.CONFIG).exists() and given.coordinator is None:
        raise UserError(f"{folder} holds this run, unfinished. Continue it with `{resume_command(folder)}`.")
    return _execute(recipe, folder, given, ["train", *arguments])


def _resume(arguments: list[str]) -> int:
    given = parse(Resume, arguments, "resume")
    from metatower.recipes import run

    recipe = run.recipe_of(given.folder)
    if run.is_finished(given.folder):
        print(f"The run in {given.folder} is finished already; these are its results.")
    return _execute(recipe, given.folder, given, ["resume", *arguments])


def _execute(recipe: Any, folder: Path, given: Any, arguments: list[str]) -> int:
    if given.processes is not None and given.processes < 1:
        raise UserError(f"Expected --processes of at least 1, got {given.processes}.")
    if given.process is not None and given.coordinator is None:
        raise UserError("--process says which of the processes this is, and needs --coordinator HOST:PORT beside it.")
    if given.coordinator is None and (given.processes or 1) > 1:
        from metatower.launch import launch

        return launch(arguments, given.processes, f"{resume_command(folder)} --processes {given.processes}")
    from metatower.evaluation import tables
    from metatower.evaluation.conclusion import Conclusion
    from metatower.recipes import run
    from metatower.training.checkpoint import checkpoints
    from metatower.training.loop import Interrupted
    from metatower.training.processes import end_with, is_first, join, own_folder
    from metatower.training.progress import progress
    from metatower.training.runtime import interrupted_by_sigterm, setup

    if not (math.isfinite(given.checkpoint_every) and given.checkpoint_every >= 0):
        raise UserError(f"Expected --checkpoint-every as seconds of at least 0, got {given.checkpoint_every}.")
    setup(given.devices)
    fresh = not folder.exists()
    if given.coordinator is not None:
        from metatower.launch import PARENT

        if launcher := os.environ.get(PARENT):
            end_with(int(launcher))
        join(given.coordinator, given.processes, given.process)
    try:
        with own_folder(folder) as own, nullcontext() if given.coordinator else interrupted_by_sigterm():
            show = progress(given.progress if is_first() else "silent")
            summary = run.execute(recipe, own, show, checkpoint_every_seconds=given.checkpoint_every, began=BEGAN)
    except (Interrupted, KeyboardInterrupt):
        return _stopped(folder)
    except (MemoryError, OverflowError, RuntimeError) as error:
        if fresh and _too_large(error) and not checkpoints(folder) and not (folder / "baselines").exists():
            shutil.rmtree(folder, ignore_errors=True)  # nothing was done: the name is free for options that fit
        raise
    if not is_first():
        return 0
    conclusion = Conclusion.load(folder / run.CONCLUSION)
    print()
    tables.show(conclusion.results, conclusion.paired)
    print(f"{summary['seconds']:.0f} s in all. The page to read: {folder / 'report.html'}")
    return 0


def _evaluate(arguments: list[str]) -> int:
    given = parse(Evaluate, arguments, "evaluate")
    from metatower.evaluation import report, tables
    from metatower.recipes.judge import judge
    from metatower.training.files import check_unused, to_json
    from metatower.training.progress import progress
    from metatower.training.runtime import setup

    options = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
    as_json, mode, out = (options.pop(name) for name in ("json", "progress", "out"))
    check_unused(out)
    setup()
    conclusion = judge(**options, show=progress(mode))
    if out is not None:
        report.keep(conclusion, out)
    if as_json:
        about = {"model": str(given.folder), "tasks": given.tasks, "seed": given.seed, "notes": conclusion.notes}
        print(to_json({**about, **conclusion.summary()}, indent=2))
    else:
        tables.show(conclusion.results, conclusion.paired, conclusion.notes)
    return 0


def _adapt(arguments: list[str]) -> int:
    given = parse(Adapt, arguments, "adapt")
    from metatower.adapters import folders
    from metatower.training.progress import progress
    from metatower.training.runtime import setup

    folders.check_free(given.out)
    setup()
    answers = folders.name_pictures(given.support, given.predict, given.learner, progress(given.progress))
    sheet = folders.write(answers, given.out)
    folders.show(answers)
    print(f"Written: {given.out} and {sheet}")
    return 0


def _diagnose(arguments: list[str]) -> int:
    given = parse(Diagnose, arguments, "diagnose")
    from metatower.evaluation import tables
    from metatower.recipes.diagnose import diagnose
    from metatower.training.files import check_unused
    from metatower.training.progress import progress
    from metatower.training.runtime import setup

    check_unused(given.out)
    setup()
    how = {"episodes": given.episodes, "seed": given.seed, "out": given.out}
    found, page = diagnose(given.folder, **how, show=progress(given.progress))
    tables.show(found.results, found.paired, found.notes)
    print(f"The page to read: {page}")
    return 0


def _health(arguments: list[str]) -> int:
    given = parse(Health, arguments, "health")
    from metatower.evaluation import tables
    from metatower.recipes.health import health
    from metatower.training.files import check_unused
    from metatower.training.progress import progress
    from metatower.training.runtime import setup

    check_unused(given.out)
    setup()
    how = {"samples": given.samples, "seed": given.seed, "out": given.out}
    found, page = health(given.folder, **how, show=progress(given.progress))
    tables.show_health(found)
    print(f"The page to read: {page}")
    return 0


def _report(arguments: list[str]) -> int:
    given = parse(Report, arguments, "report")
    from metatower.evaluation import report
    from metatower.recipes.run import is_finished, recipe_of

    recipe = recipe_of(given.folder)
    is_finished(given.folder)  # says what is wrong with a damaged summary
    print(report.rewrite(given.folder, recipe.about(), recipe.use))
    return 0


def _plan(arguments: list[str]) -> int:
    recipe_class, rest = recipe_named(arguments, "plan")
    name = recipe_class.name
    given = parse(with_recipe(recipe_class, Planning), rest, f"plan {name}", PLAN.format(name))
    from metatower.core.describe import describe
    from metatower.core.plan import parse_bytes, plan
    from metatower.core.sharding import how_spread
    from metatower.training.runtime import setup

    recipe, memory = given.recipe, None if given.memory is None else parse_bytes(given.memory)
    setup(given.devices)
    tower, data = recipe.build()
    print(describe(tower))
    print()
    print(plan(tower, data))
    print(how_spread(tower, data, given.devices))
    if memory is not None:
        from metatower.gradients.fit import fit

        print(f"Cheapest within {given.memory}: {fit(tower, data, memory)}")
    print(f"The recipe takes {recipe.steps:,} steps of the top storey; judging and baselines come on top.")
    return 0


def _list(arguments: list[str]) -> int:
    parse(List, arguments, "list")
    from metatower.recipes import DEFAULT, RECIPES

    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        print(f"{name.ljust(width)}  {recipe.about().splitlines()[0]}{' (the default)' if name == DEFAULT else ''}")
    return 0


def _compare(arguments: list[str]) -> int:
    given = parse(Compare, arguments, "compare")
    from metatower.evaluation import comparison_page
    from metatower.recipes.compare import compare
    from metatower.recipes.compare_plan import Asked
    from metatower.training.loop import Interrupted
    from metatower.training.progress import progress
    from metatower.training.runtime import interrupted_by_sigterm, setup

    minutes = given.budget if given.budget is not None else 5.0 if given.quick else 25.0
    asked = Asked(given.families, given.only, given.seeds, minutes, given.quick)
    asked.check()
    name = f"compare-{Path(given.families).stem}{'-quick' * given.quick}"
    folder = (given.out or Path("runs") / name).expanduser()
    setup()
    command = shlex.join(["metatower", "compare", *arguments])
    try:
        with interrupted_by_sigterm():
            content = compare(asked, folder, progress(given.progress), command, began=BEGAN)
    except (Interrupted, KeyboardInterrupt):
        print("\nStopped. The same command goes on.", file=sys.stderr)
        return 130
    print()
    comparison_page.show(content)
    took = f"{content['seconds']:.0f} s in all, where {60 * content['minutes']:.0f} were planned"
    print(f"{took}. The page to read: {folder / comparison_page.PAGE}")
    return 0


def _is_one_of_many() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _lost(error: Exception) -> int:
    """Tells of an error nobody expected; in a computation of many it is most likely the loss of another process."""
    from jax.errors import JaxRuntimeError

    from metatower.launch import LOST

    if not isinstance(error, JaxRuntimeError) and "Gloo" not in str(error):
        traceback.print_exception(error)
        return 1
    print(f"metatower: lost the other processes ({str(error).splitlines()[0]}).", file=sys.stderr)
    return LOST


def _stopped(folder: Path | None) -> int:
    again = f" Continue with: {resume_command(folder)}" if folder and folder.exists() else ""
    print(f"\nStopped.{again}", file=sys.stderr)
    return 130


def _too_large(error: Exception) -> bool:
    """Whether this is what Python, NumPy or XLA say where there is too little memory."""
    return isinstance(error, MemoryError | OverflowError) or "RESOURCE_EXHAUSTED" in str(error)


def _complain(sentence: str) -> int:
    print(f"metatower: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
