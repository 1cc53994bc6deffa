"""A family of task distributions of one's own, from a Python file: for `metatower compare`."""

import importlib.util
import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Objective, Task, Tasks
from metatower.core.errors import UserError
from metatower.nets import MLP, Supervised, cross_entropy, squared_error

SPLITS = ("train", "validation", "test")
EXPECTED = (
    "`def family(split: str) -> Tasks`, whose tasks are pairs of distributions, `Task(support: Tasks, query: Tasks)`"
)


@dataclass(frozen=True)
class OwnFamily:
    """What the file says; `read` makes it."""

    path: Path
    splits: dict[str, Tasks]
    hidden: tuple[int, ...] | None
    """Units of the hidden layers, if the file says so."""
    build: Callable[[int], Objective] | None
    """The network and its loss, if the file gives them."""
    inputs: int
    outputs: int
    labels: bool
    ways: int | None
    """How many labels there can be, where tasks say so."""

    def objective(self, seed: int, hidden: tuple[int, ...]) -> Objective:
        """The file's network, or an MLP of so many hidden units that fits the tasks."""
        if self.build is not None:
            return self.build(seed)
        net = MLP((self.inputs, *(self.hidden or hidden), self.outputs), key=jax.random.key(seed))
        return Supervised(net, self.criterion)

    @property
    def criterion(self) -> Callable:
        """What predictions are judged by, where the file gives no `objective`."""
        return cross_entropy if self.labels else squared_error

    @property
    def one_pool(self) -> bool:
        """Whether what a distribution is learned from and what it is judged on are the same tasks, key by key."""
        keys = jax.random.split(jax.random.key(0), 3)

        def shared(tasks: Tasks) -> bool:
            world = tasks.sample(keys[2])
            pools = ([jax.tree.leaves(pool.sample(k)) for k in keys[:2]] for pool in (world.support, world.query))
            return all(np.array_equal(*pair) for both in zip(*pools, strict=True) for pair in zip(*both, strict=True))

        return any(shared(tasks) for tasks in self.splits.values())

    @property
    def metric(self) -> str:
        """What is compared: the accuracy where tasks have labels and the network's loss reports one, else the loss."""
        task = self.splits["train"].sample(jax.random.key(0)).support.sample(jax.random.key(1))
        _, metrics = self.objective(0, (4,)).loss(task.support, key=jax.random.key(2))
        return "accuracy" if self.labels and "accuracy" in metrics else "loss"


def read(path: Path) -> OwnFamily:
    """The family of a Python file, which is run.

    The file has `def family(split)`, which gives a `Tasks` for each of "train", "validation" and "test". It may have
    `hidden`, the units of the hidden layers, and `def objective(seed)`, a network and its loss (an `Objective`) for
    tasks that no MLP on vectors fits.

    Raises:
        UserError: no such file, an error in it, or a family that cannot be used; in one sentence.
    """
    module = _run(path)
    family = getattr(module, "family", None)
    if not callable(family):
        raise UserError(f"{path} has no function `family`. Expected {EXPECTED}.")
    splits = {split: _split(path, family, split) for split in SPLITS}
    shapes = {split: _shapes(path, split, tasks) for split, tasks in splits.items()}
    for split in SPLITS[1:]:
        if shapes[split] != shapes["train"]:
            raise UserError(
                f"{path}: the tasks of {split!r} have inputs and targets of {shapes[split]}, and those of 'train' of "
                f"{shapes['train']}: one network has to serve both."
            )
    x, y, labels, classes = shapes["train"]
    hidden, build = _hidden(path, module), getattr(module, "objective", None)
    if build is None and (len(x) != 1 or (labels and (classes is None or y != ()))):
        what = f"inputs of shape {x}" if len(x) != 1 else "labels whose number it does not say (`Examples.ways`)"
        raise UserError(f"{path}: its tasks have {what}; add `def objective(seed)`, a network with its loss, to it.")
    outputs = (classes or 1) if labels else math.prod(y)
    own = OwnFamily(path, splits, hidden, build, math.prod(x), outputs, labels, classes if labels else None)
    _try(path, own)
    return own


def _run(path: Path) -> Any:
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        raise UserError(f"--families takes `functions`, `glyphs`, or a Python file; {path} is {what}.")
    spec = importlib.util.spec_from_file_location(
        f"metatower_family_{path.stem}", path, submodule_search_locations=None
    )
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file: its name has to end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and annotations look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} cannot be run: {_said(error, path)}.") from error
    return module


def _split(path: Path, family: Callable, split: str) -> Tasks:
    try:
        tasks = family(split)
    except Exception as error:
        raise UserError(f"{path}: family({split!r}) raised {_said(error, path)}.") from error
    if not isinstance(tasks, Tasks):
        raise UserError(
            f"{path}: family({split!r}) returned {_kind(tasks)}; expected a `metatower.Tasks`, as in {EXPECTED}."
        )
    return tasks


def _shapes(path: Path, split: str, tasks: Tasks) -> tuple[tuple, tuple, bool, int | None]:
    """Of an input and of a target, whether targets are labels, and how many there are, if the tasks say so."""
    key = jax.random.key(0)
    try:
        world = tasks.sample(key)
        _check(isinstance(world, Task), f"`sample` returned {_kind(world)}, not a `Task`")
        found = []
        for name in ("support", "query"):
            pool = getattr(world, name)
            _check(isinstance(pool, Tasks), f"the {name} of a task is {_kind(pool)}, not a `Tasks` of its own")
            task = pool.sample(key)
            _check(isinstance(task, Task), f"`sample` of the {name} returned {_kind(task)}, not a `Task`")
            for part in (task.support, task.query):
                _check(hasattr(part, "x") and hasattr(part, "y"), f"a task holds {_kind(part)}, not `Examples(x, y)`")
                _check(part.x.ndim > 0 and len(part.x) == len(part.y) > 0, "a task has no examples, or not one y each")
                _check(_is_finite(part.x) and _is_finite(part.y), "a task has numbers that are not finite")
                _check(jnp.issubdtype(part.x.dtype, jnp.floating), f"inputs are {part.x.dtype}, not floating-point")
                ways = getattr(part, "ways", None)
                labels = bool(jnp.issubdtype(part.y.dtype, jnp.integer))
                _check(labels or part.y.ndim > 1, f"targets have shape {part.y.shape}; expected [examples, numbers]")
                found.append((part.x.shape[1:], part.y.shape[1:], labels, None if ways is None else len(ways)))
        both = [world.support.sample(k) for k in jax.random.split(key, 2)]
        same = [np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, both), strict=True)]
        _check(not all(same), "a distribution gives the same task for every key: draw with `jax.random` from the key")
        _check(len(set(found)) == 1, f"its parts have examples of different shapes: {sorted(set(map(str, found)))}")
        jax.eval_shape(
            lambda keys: jax.vmap(lambda k: tasks.sample(k).support.sample(k))(keys), jax.random.split(key, 2)
        )
    except UserError as error:
        raise UserError(f"{path}: in family({split!r}), {error}; expected {EXPECTED}.") from error
    except Exception as error:
        raise UserError(
            f"{path}: sampling from family({split!r}) raised {_said(error, path)}; `sample(key)` has to be a pure "
            "function that JAX can trace."
        ) from error
    return found[0]


def _try(path: Path, own: OwnFamily) -> None:
    """One loss of the network on one task."""
    try:
        objective = own.objective(0, (4,))
        task = own.splits["train"].sample(jax.random.key(0)).support.sample(jax.random.key(1))
        loss, _ = objective.loss(task.support, key=jax.random.key(2))
    except Exception as error:
        raise UserError(f"{path}: the network cannot be used on its tasks: {_said(error, path)}.") from error
    if jnp.shape(loss) != () or not _is_finite(loss):
        raise UserError(f"{path}: the loss of a fresh network on one of its tasks is {loss}, not a finite number.")


def _hidden(path: Path, module: Any) -> tuple[int, ...] | None:
    hidden = getattr(module, "hidden", None)
    if hidden is None:
        return None
    if not isinstance(hidden, tuple | list) or not hidden or not all(type(n) is int and n > 0 for n in hidden):
        raise UserError(f"{path}: expected `hidden` as units of the hidden layers, like (40, 40), got {hidden!r}.")
    return tuple(hidden)


def _check(fine: bool, complaint: str) -> None:
    if not fine:
        raise UserError(complaint)


def _is_finite(values: Any) -> bool:
    return bool(np.isfinite(np.asarray(values)).all())


def _kind(value: Any) -> str:
    name = type(value).__name__
    return "nothing" if value is None else f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _said(error: BaseException, path: Path) -> str:
    """The error in a few words, with the line of the file where it came up."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else lines[-1] if lines else None
    words = str(error.msg if isinstance(error, SyntaxError) else error).strip().splitlines()
    said = f"{type(error).__name__}{f': {words[0]}' if words else ''}"
    return f"{said.rstrip('.')}{f' (line {line})' if line else ''}"
