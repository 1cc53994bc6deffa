"""The command line: parse, call, print."""

import dataclasses
import difflib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metatower.core.errors import UserError

# jax and the recipes are imported where they are used: help and complaints about arguments come at once.

Progress = Literal["auto", "rich", "plain", "silent"]

OVERVIEW = """\
usage: metatower COMMAND ...

Learning to learn, and learning how to learn to learn.

commands:
  train [RECIPE]   run a recipe: train, judge beside baselines, report
  resume DIR       continue a run that was stopped or killed
  evaluate DIR     judge a trained learner, on other data too
  report DIR       draw the plots and the page of a run again
  plan RECIPE      what a recipe costs: FLOPs, memory, compile time; nothing is run
  list             the recipes

examples:
  metatower train                          the main job, into runs/
  metatower train maml-sinusoid --seed 1   another recipe
  metatower evaluate runs/maml-sinusoid-0  the learner of that run, on fresh tasks
  metatower COMMAND --help                 more on one command

A run is stopped with Ctrl-C and continued with `metatower resume DIR`, to the same result.
"""

_TRAIN = """\
The run's folder gets config.json, metrics.jsonl, checkpoints, model/, summary.json, plots/ and report.html.

examples:
  metatower train {0}
  metatower train {0} --seed 1 --steps 500 --out runs/try
  metatower train {0} --processes 2

The recipe comes first; `metatower list` shows them all.
"""

_PLAN = """\
What the recipe {0} costs, storey by storey, before anything is run.

FLOPs are counted, and memory is XLA's own figure; the programs are compiled, which at storey 2 takes a while.

examples:
  metatower plan {0}
  metatower plan {0} --steps 500
  metatower plan {0} --memory 2GB
"""


@dataclass(frozen=True, kw_only=True)
class Running:
    """What every command that runs a recipe takes."""

    checkpoint_every: float = 30.0
    """Seconds between checkpoints: at most so much work is lost when a run is killed."""
    progress: Progress = "auto"
    """How progress is shown: a bar, plain lines, or nothing."""
    devices: int | None = None
    """Processor cores (or GPUs) of this machine that share the work of a step; 1 for none of it. All if not given."""
    processes: int | None = None
    """Processes that share the work: as many are started here, each with its part of the cores."""
    coordinator: str | None = None
    """On a cluster, where every process is started by you or by your launcher: `slurm`, `ompi`, or the HOST:PORT where
    the first process listens, the same for all; then --processes and --process too."""
    process: int | None = None
    """Which of the processes this is, from 0; with --coordinator HOST:PORT."""


@dataclass(frozen=True, kw_only=True)
class Training(Running):
    """A subclass is made for every recipe, with its options."""

    out: Path | None = None
    """The run's folder, to be made; runs/RECIPE-SEED if not given."""


@dataclass(frozen=True)
class Resume(Running):
    """Continue a run that was stopped or killed, to the same bits as if it had not been.

    examples:
      metatower resume runs/maml-sinusoid-0
    """

    folder: tyro.conf.Positional[Path]
    """The run's folder."""


@dataclass(frozen=True)
class Evaluate:
    """Judge the trained learner of a run on fresh tasks.

    --tasks says on what. The images of `omniglot` and of your own folder are resized to what the model takes:
      held-out            what the recipe keeps back (the default)
      glyphs              letters of scripts that no recipe trains on
      omniglot            Omniglot's evaluation alphabets; omniglot.npz is looked for in METATOWER_DATA
      folder:PATH         your images, one sub-folder per class
      sinusoids           sine waves, for models of functions
      glyph-families      distributions of glyph tasks: a model that learns how to learn is run anew on each
      function-families   the same with distributions of functions (or `functions`)

    A model of storey 1 (an optimised MAML) is first run on one part of the classes, then judged on the others.

    examples:
      metatower evaluate runs/maml-glyphs-0 --tasks omniglot --episodes 1000
      metatower evaluate runs/maml-glyphs-0 --tasks folder:my/photos --shots 5
      metatower evaluate runs/optimised-maml-0 --tasks omniglot --json
    """

    folder: tyro.conf.Positional[Path]
    """The run's folder, or a copy of its `model` folder."""
    tasks: str = "held-out"
    """What to judge on; see above."""
    ways: int | None = None
    """Classes per task; as in training if not given, and at most that."""
    shots: int | None = None
    """Examples of each class to adapt to; as in training if not given."""
    queries: int | None = None
    """Examples of each class to be judged on; as in training, or as many as there are, if not given."""
    episodes: int | None = None
    """How many tasks (1000 if not given); for a model of storey 1, how many whole runs (50)."""
    seed: int = 0
    """Chooses the tasks."""
    json: bool = False
    """Print JSON instead of a table."""
    progress: Progress = "auto"
    """How progress is shown: a bar, plain lines, or nothing."""


@dataclass(frozen=True)
class Report:
    """Draw the plots and write the page of a finished run again; nothing is computed anew.

    examples:
      metatower report runs/maml-sinusoid-0
    """

    folder: tyro.conf.Positional[Path]
    """The run's folder."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a plan may be held to."""

    memory: str | None = None
    """Memory for one step, such as 512MB or 2GB: also say the cheapest exact setting that fits."""


@dataclass(frozen=True)
class List:
    """The recipes, with what each does.

    examples:
      metatower list
    """


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


def _dispatch(arguments: list[str]) -> int:
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "resume": _resume,
        "evaluate": _evaluate,
        "report": _report,
        "plan": _plan,
        "list": _list,
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
    recipe_class, rest = _recipe_named(arguments, "train")
    name = recipe_class.name
    given = _parse(
        _with_recipe(recipe_class, Training), rest, f"train {name}", recipe_class.about(), _TRAIN.format(name)
    )
    recipe = given.recipe
    folder = given.out or Path("runs") / f"{name}-{recipe.seed}"

    from metatower.recipes import run

    run.check_config(recipe, folder)
    if run.is_finished(folder):
        print(f"The run in {folder} is finished already; these are its results. For another, choose --out or --seed.")
    elif (folder / run.CONFIG).exists() and given.coordinator is None:
        raise UserError(f"{folder} holds this run, unfinished. Continue it with `metatower resume {folder}`.")
    return _execute(recipe, folder, given, ["train", *arguments])


def _resume(arguments: list[str]) -> int:
    given = _parse(Resume, arguments, "resume")
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

        return launch(arguments, given.processes, f"metatower resume {folder} --processes {given.processes}")
    from metatower.evaluation import tables
    from metatower.evaluation.conclusion import Conclusion
    from metatower.recipes import run
    from metatower.training.loop import Interrupted
    from metatower.training.processes import is_first, join, own_folder
    from metatower.training.progress import progress
    from metatower.training.runtime import setup

    setup(given.devices)
    if given.coordinator is not None:
        join(given.coordinator, given.processes, given.process)
    try:
        with own_folder(folder) as own:
            show = progress(given.progress if is_first() else "silent")
            summary = run.execute(recipe, own, show, checkpoint_every_seconds=given.checkpoint_every)
    except (Interrupted, KeyboardInterrupt):
        return _stopped(folder)
    if not is_first():
        return 0
    conclusion = Conclusion.load(folder / run.CONCLUSION)
    print()
    tables.show(conclusion.results, conclusion.paired)
    print(f"{summary['seconds']:.0f} s in all. The page to read: {folder / 'report.html'}")
    return 0


def _evaluate(arguments: list[str]) -> int:
    given = _parse(Evaluate, arguments, "evaluate")
    from metatower.evaluation import tables
    from metatower.recipes.judge import judge
    from metatower.training.files import to_json
    from metatower.training.progress import progress
    from metatower.training.runtime import setup

    setup()
    options = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
    as_json, mode = options.pop("json"), options.pop("progress")
    conclusion = judge(**options, show=progress(mode))
    if as_json:
        about = {"model": str(given.folder), "tasks": given.tasks, "seed": given.seed, "notes": conclusion.notes}
        print(to_json({**about, **conclusion.summary()}, indent=2))
    else:
        tables.show(conclusion.results, conclusion.paired, conclusion.notes)
    return 0


def _report(arguments: list[str]) -> int:
    given = _parse(Report, arguments, "report")
    from metatower.evaluation import report
    from metatower.recipes.run import recipe_of

    print(report.rewrite(given.folder, recipe_of(given.folder).about()))
    return 0


def _plan(arguments: list[str]) -> int:
    recipe_class, rest = _recipe_named(arguments, "plan")
    name = recipe_class.name
    given = _parse(_with_recipe(recipe_class, Budget), rest, f"plan {name}", _PLAN.format(name))
    recipe, memory = given.recipe, None if given.memory is None else _size(given.memory)
    from metatower.core.describe import describe
    from metatower.core.plan import plan

    tower, data = recipe.build()
    print(describe(tower))
    print()
    print(plan(tower, data))
    if memory is not None:
        from metatower.gradients.fit import fit

        print(f"Cheapest within {given.memory}: {fit(tower, data, memory)}")
    print(f"The recipe takes {recipe.steps:,} steps of the top storey; judging and baselines come on top.")
    return 0


def _size(text: str) -> int:
    """Bytes of "512MB", "2 GB" or "1e9"."""
    found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([KMGT]?)I?B?\s*", text.upper().replace("E", "e"))
    try:
        if found is None:
            raise ValueError
        return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " "))
    except ValueError:
        raise UserError(f"--memory takes an amount such as 512MB or 2GB, got {text!r}.") from None


def _list(arguments: list[str]) -> int:
    _parse(List, arguments, "list")
    from metatower.recipes import DEFAULT, RECIPES

    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        print(f"{name.ljust(width)}  {recipe.about().splitlines()[0]}{' (the default)' if name == DEFAULT else ''}")
    return 0


def _recipe_named(arguments: list[str], command: str) -> tuple[Any, list[str]]:
    """The recipe that comes first, or else the default one, and the other arguments."""
    from metatower.recipes import DEFAULT, RECIPES, find

    if arguments and not arguments[0].startswith("-"):
        return find(arguments[0]), arguments[1:]
    late = next((each for each in arguments if each in RECIPES), None)
    if late is not None:
        raise UserError(f"The recipe comes first: `metatower {command} {late} --...`.")
    return find(DEFAULT), arguments


def _with_recipe(recipe: Any, *bases: type) -> type:
    """A dataclass with a field `recipe`, whose options stand beside those of `bases` on the command line."""
    field = ("recipe", Annotated[recipe, tyro.conf.arg(name="")])
    return dataclasses.make_dataclass("Options", [field], bases=bases, kw_only=True, frozen=True)


def _parse(kind: Any, arguments: list[str], command: str, *about: str) -> Any:
    # the texts as they are written: tyro would join the lines of a docstring
    return tyro.cli(
        kind,
        args=arguments,
        prog=f"metatower {command}",
        description="\n\n".join(inspect.cleandoc(text) for text in about or (kind.__doc__,)),
        config=(tyro.conf.FlagCreatePairsOff,),
    )


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
    again = f" Continue with: metatower resume {folder}" if folder and folder.exists() else ""
    print(f"\nStopped.{again}", file=sys.stderr)
    return 130


def _complain(sentence: str) -> int:
    print(f"metatower: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
