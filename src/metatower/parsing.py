"""Arguments of the command line to options, by tyro; its complaints in one sentence."""

import dataclasses
import inspect
import io
import itertools
from contextlib import redirect_stderr
from typing import Annotated, Any

import tyro

from metatower.core.errors import UserError


def recipe_named(arguments: list[str], command: str) -> tuple[Any, list[str]]:
    """The recipe that comes first, or else the default one, and the other arguments."""
    from metatower.recipes import DEFAULT, RECIPES, find

    if arguments and not arguments[0].startswith("-"):
        return find(arguments[0]), arguments[1:]
    late = next((each for each in arguments if each in RECIPES), None)
    if late is not None:
        raise UserError(f"The recipe comes first: `metatower {command} {late} --...`.")
    return find(DEFAULT), arguments


def with_recipe(recipe: Any, *bases: type) -> type:
    """A dataclass with a field `recipe`, whose options stand beside those of `bases` on the command line."""
    field = ("recipe", Annotated[recipe, tyro.conf.arg(name="")])
    return dataclasses.make_dataclass("Options", [field], bases=bases, kw_only=True, frozen=True)


def parse(kind: Any, arguments: list[str], command: str, *about: str) -> Any:
    """The options of a command as a `kind`; what does not fit them is a `UserError` of one sentence.

    Args:
        about: the paragraphs that `--help` begins with; the docstring of `kind` if none are given.
    """
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            # the texts as they are written: tyro would join the lines of a docstring
            given = tyro.cli(
                kind,
                args=arguments,
                prog=f"metatower {command}",
                description="\n\n".join(inspect.cleandoc(text) for text in about or (kind.__doc__,)),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if not end.code:  # --help
            raise
        raise UserError(_in_a_sentence(complaint.getvalue(), command)) from None
    for name, following in itertools.zip_longest(arguments, arguments[1:], fillvalue="--"):
        if following.startswith("--") and getattr(given, name.removeprefix("--").replace("-", "_"), None) == ():
            raise UserError(f"{name}: expected one or more values, got none. See `metatower {command} --help`.")
    return given


def _in_a_sentence(box: str, command: str) -> str:
    """What tyro complains of in a box of several parts: the first part, and the options that it thinks were meant."""
    parts = [""]
    for line in box.splitlines():
        text = line.strip("│|─ \t")
        if any(map(str.isalnum, text)) and not line.startswith(("╭", "+", "-")):
            parts[-1] += f" {text}"
        elif parts[-1]:  # a rule between parts; how it is drawn depends on the terminal
            parts.append("")
    if not box.lstrip().startswith("╭"):  # where frames cannot be drawn, the title is a part of its own
        parts = [*parts[1:], ""]
    meant = [word for part in parts if "Perhaps you meant" in part for word in part.split() if word.startswith("--")]
    words = " ".join(parts[0].split()).rstrip(".") or "These arguments cannot be read"
    guess = f" Perhaps you meant {' or '.join(dict.fromkeys(meant))}." if meant else ""
    return f"{words}.{guess} See `metatower {command} --help`."
