"""What every recipe is: a named, complete, typed configuration of one run."""

import dataclasses
import inspect
import math
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from metatower.core import Learner, State, Tasks
from metatower.core.errors import UserError
from metatower.evaluation.conclusion import Conclusion
from metatower.training.progress import Progress

LEAST_PIXELS, MOST_PIXELS = 4, 256
"""Along a side. Letters are drawn at 28 and Omniglot's at 105, so that more shows nothing new and fills the memory."""


IN_WORLDS = """\
metatower evaluate {run} --seed 1   # judge it again, in fresh worlds

import metatower
learner = metatower.load("{run}")   # docs/meta-rl.md says what it does"""
"""`Recipe.use` of learners that act."""


@dataclass(frozen=True)
class Recipe(ABC):
    """A complete run: what is trained, on what, and how it is judged.

    Subclasses are frozen dataclasses. Their fields are the options of the command line (the string under each is its
    help), and their docstring is what `metatower list` and the report say of them. Everything that they build is a
    function of the options alone, so that a run can be rebuilt from its `config.json`.
    """

    name: ClassVar[str]
    """What the recipe is called on the command line."""
    judges_itself: ClassVar[bool] = False
    """Whether its tasks are no examples: its learner acts in worlds, or on problems of their own."""
    ink: ClassVar[bool | None] = None
    """Whether its pictures, `size` pixels a side, are bright strokes on dark ground, as a person's are then made; None
    if it has no pictures."""
    use: ClassVar[str] = """\
metatower evaluate {run}            # judge it again, on fresh tasks
metatower evaluate --help                 # other data, your own folder of images among them

import jax, metatower
learner = metatower.load("{run}")
state = learner.adapt(support, key=jax.random.key(0))   # learn from your data
loss, metrics = learner.loss(state, query, key=jax.random.key(1))"""
    """Commands and code that use what a run has learned, for its report; "{run}" stands for the folder."""

    seed: int = 0
    """Chooses the initial numbers and the stream of tasks."""
    steps: int = 1000
    """Steps of the top storey."""

    def __post_init__(self):
        self.check()

    def check(self) -> None:
        """Refuses options that cannot be; subclasses add what they know.

        Raises:
            UserError: a value of another type than the option's, a number that is not finite or negative, or a tuple
                of numbers that is empty or has one below 1.
        """
        if isinstance(self.seed, int) and self.seed >= 2**32:
            raise UserError(f"{self.name}: expected --seed from 0 to 2**32 - 1, got {self.seed}.")
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            given, hint = getattr(self, field.name), hints[field.name]
            if wrong := _complaint(given, hint):
                raise UserError(f"{self.name}: expected {flag(field.name)} {wrong}, got {given!r}.")

    def check_pixels(self, size: int) -> None:
        """Raises UserError if pictures of so many pixels a side are too small or too large."""
        if not LEAST_PIXELS <= size <= MOST_PIXELS:
            raise UserError(f"{self.name}: expected --size from {LEAST_PIXELS} to {MOST_PIXELS} pixels, got {size}.")

    def at_least_one(self, *names: str) -> None:
        """Raises UserError if one of these options is below 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise UserError(f"{self.name}: expected {flag(name)} of at least 1, got {getattr(self, name)}.")

    def above_zero(self, *names: str) -> None:
        """Raises UserError if one of these options is not above 0."""
        for name in names:
            if getattr(self, name) <= 0:
                raise UserError(f"{self.name}: expected {flag(name)} above 0, got {getattr(self, name)}.")

    def from_zero_to_one(self, *names: str) -> None:
        """Raises UserError if one of these options is not from 0 to 1."""
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{self.name}: expected {flag(name)} from 0 to 1, got {getattr(self, name):g}.")

    def two_to_judge_on(self, judged: int, what: str) -> None:
        """Raises UserError if so many allow no interval."""
        if judged < 2:
            raise UserError(
                f"{self.name}: expected at least 2 {what} to judge on (--judged; of `evaluate` --episodes), for "
                f"intervals; got {judged}."
            )

    def seed_for(self, stream: int) -> int:
        """A seed for another stream of tasks than the run's own."""
        return (self.seed + stream) % 2**32

    def build(self) -> tuple[Any, Tasks]:
        """Learner and data, the data first.

        Raises:
            UserError: options that do not go together.
        """
        with self.building():
            data = self.data()
            self.held_out()  # refused now if it cannot be, and not after hours of training
            return self.learner(), data

    @contextmanager
    def building(self) -> Generator[None, None, None]:
        """Turns what goes wrong in here into a `UserError`: an option that no check foresaw."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{self.name} cannot be built with these options: {what}") from error

    @abstractmethod
    def learner(self) -> Learner:
        """The top storey of the tower."""

    @abstractmethod
    def data(self) -> Tasks:
        """What the top storey's steps sample from."""

    def fingerprint(self) -> str | None:
        """A checksum of what is read on this machine and decides a run's bits beside its options; None: nothing is."""
        return None

    def begin(self, learner: Any, folder: Path, show: Progress) -> Learner:
        """`self.learner()` as training starts from it, where that takes a training of its own first.

        It is called again when a run is continued, so what takes long must be kept in `folder / "baselines"`.
        """
        del folder, show
        return learner

    @abstractmethod
    def artefact(self, learner: Any, state: State) -> Learner:
        """The learner worth keeping, given `self.learner()` and a state of it.

        Pure: `metatower.load` calls it with a state of shapes only.
        """

    def finish(self, artefact: Any, show: Progress) -> Learner:
        """The artefact with what is measured after training; of the same structure and shapes."""
        del show
        return artefact

    @abstractmethod
    def held_out(self) -> Tasks:
        """What the artefact is judged on: tasks of its own storey that no training step has sampled."""

    def shaped(self) -> Tasks:
        """Tasks of the shapes of `held_out`, with any content: what a model takes, if possible without reading data."""
        return self.held_out()

    @abstractmethod
    def conclude(self, artefact: Any, folder: Path, show: Progress) -> Conclusion:
        """The artefact and its baselines, judged on `held_out`.

        Baselines that need training do it in folders of their own, `folder / "baselines" / <name>`, so that a run
        that is killed here is continued here.
        """

    def judge_fresh(self, artefact: Any, *, episodes: int | None, seed: int, show: Progress) -> Conclusion:
        """The artefact on fresh tasks of its own kind: what `metatower evaluate` does where `judges_itself` is true."""
        raise NotImplementedError(f"{self.name}: the tasks are examples, which `recipes.judge` handles.")

    def with_absolute_paths(self) -> "Recipe":
        """The same, with paths that mean the same in every working directory."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        paths = {name: path.expanduser().absolute() for name, path in given.items() if isinstance(path, Path)}
        return dataclasses.replace(self, **paths)

    @classmethod
    def about(cls) -> str:
        """The docstring."""
        return inspect.cleandoc(cls.__doc__ or cls.name)

    def options(self) -> dict[str, Any]:
        """The options in JSON's types; `with_options` is the way back."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def with_options(cls, options: dict[str, Any]) -> "Recipe":
        """The recipe with these options, which came from a file.

        Raises:
            UserError: an option that this version does not have, or a value that it refuses.
        """
        hints = typing.get_type_hints(cls)
        unknown = sorted(set(options) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise UserError(
                f"The recipe {cls.name} has no option {', '.join(unknown)}: the run was made by another version of "
                "metatower, or its config.json was changed."
            )
        try:
            return cls(**{name: _typed(value, hints[name]) for name, value in options.items()})
        except UserError:
            raise
        except (TypeError, ValueError) as error:
            raise UserError(f"The options of the recipe {cls.name} cannot be used: {error}.") from error


def flag(name: str) -> str:
    """An option as it is typed on the command line.

    >>> flag("inner_rate")
    '--inner-rate'
    """
    return "--" + name.replace("_", "-")


def _complaint(given: Any, hint: Any) -> str:
    """What a value of this type would have been, if this is none; empty if it is fine."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        complaints = [_complaint(given, kind) for kind in typing.get_args(hint) if kind is not type(None)]
        return "" if given is None or "" in complaints else complaints[0]
    if typing.get_origin(hint) is Literal:
        return "" if given in typing.get_args(hint) else f"as one of {_names(hint)}"
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        if not isinstance(given, tuple) or not given:
            return f"as a tuple of one or more of {_names(inner)}"
        worst = next((wrong for each in given if (wrong := _complaint(each, inner))), "")
        if not worst and inner is int and min(given) < 1:
            return "with numbers of at least 1"
        return worst
    if hint is float:
        fine = isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given) and given >= 0
        return "" if fine else "as a finite number, not negative"
    if hint is int:
        fine = isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**53
        return "" if fine else "as an integer from 0 to 2**53 - 1"
    if isinstance(hint, type) and not isinstance(given, hint):
        return f"as a {hint.__name__}"
    return ""


def _names(kind: Any) -> str:
    return ", ".join(map(str, typing.get_args(kind))) if typing.get_origin(kind) is Literal else kind.__name__


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _typed(value: Any, hint: Any) -> Any:
    """The value that `_plain` made `value` of."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for kind in kinds:
        if isinstance(value, list) and typing.get_origin(kind) is tuple:
            inner = typing.get_args(kind)[:1] or (Any,)
            return tuple(_typed(each, inner[0]) for each in value)
        if isinstance(value, str) and kind is Path:
            return Path(value)
    return value
