"""A family of task distributions of one's own, from a Python file: for `metatower compare`."""

import importlib.util
import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Objective, Task, Tasks
from metatower.core.errors import UserError
from metatower.nets import MLP, Supervised, cross_entropy, squared_error

SPLITS = ("train", "validation", "test")
DRAWN = 32
"""Distributions of each split that are looked at."""
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""How to compile what runs once."""
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
    different: int
    """How many different distributions `DRAWN` keys give for training."""

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
    different = _look_at_many(path, splits)
    own = OwnFamily(path, splits, hidden, build, math.prod(x), outputs, labels, classes if labels else None, different)
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
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} cannot be run: {_said(error, path)}.") from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
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
                mask = ways is None or (getattr(ways, "ndim", None) == 1 and ways.dtype == bool)
                _check(
                    mask, f"`ways` is {_kind(ways)}, not a boolean mask with one entry per class: `jnp.ones(3, bool)`"
                )
                labels = bool(jnp.issubdtype(part.y.dtype, jnp.integer))
                numbers = ways is None and part.y.dtype != bool
                _check(labels or numbers, f"labels are {part.y.dtype}, not integers: try `y.astype(int)`")
                _check(labels or part.y.ndim > 1, f"targets have shape {part.y.shape}; expected [examples, numbers]")
                found.append((part.x.shape[1:], part.y.shape[1:], labels, None if ways is None else len(ways)))
        once, again = (_numbers(_tasks(tasks, key, key)) for _ in range(2))
        _check(once == again, "`sample(key)` gives other tasks for the same key: draw with `jax.random`, from it alone")
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


def _look_at_many(path: Path, splits: dict[str, Tasks]) -> int:
    """Check tasks of many distributions of each split; how many of those of training differ."""
    keys = jax.random.split(jax.random.key(1), DRAWN)
    jit: Any = eqx.filter_jit  # whose types leave out the options that it hands to `jax.jit`
    look = jit(lambda tasks: jax.vmap(lambda key: _look(tasks, key))(keys), compiler_options=QUICKLY)
    seen = {}
    for split, tasks in splits.items():
        try:
            fine, *found = jax.device_get(look(tasks))
            drawn, marks = (
                [_numbers(jax.tree.map(lambda leaf, n=n: leaf[n], each)) for n in range(DRAWN)] for each in found
            )
            _check(bool(fine["finite"].all()), "some distributions have tasks with numbers that are not finite")
            _check(bool(fine["labels"].all()), "some labels are not in 0, ..., len(ways) - 1: count classes from 0")
            _check(bool(fine["ways"].all()), "some labels are of classes that `ways` says their task lacks")
            # equal labels alone do not make equal distributions
            seen[split] = set(zip(drawn, marks, strict=True))
            same = len(seen[split]) == 1
            _check(not same, "every key gives the same distribution: draw with `jax.random` from the key")
        except UserError as error:
            raise UserError(f"{path}: in family({split!r}), {error}.") from error
        except Exception as error:
            raise UserError(
                f"{path}: sampling from family({split!r}) in a compiled program raised {_said(error, path)}."
            ) from error
    for split in ("train", "validation"):
        if seen[split] & seen["test"]:
            raise UserError(
                f"{path}: family('test') has distributions of family({split!r}), so that they are not held out: let "
                "`family` use `split`, and keep ranges or lists of distributions apart."
            )
    return len(seen["train"])


def _look(tasks: Tasks, key: Any) -> tuple[dict[str, Any], Any, Any]:
    """What is fine in tasks of one distribution, their numbers, and marks of what the distribution holds."""
    drawn, fine = _tasks(tasks, key, jax.random.key(2)), dict.fromkeys(("finite", "labels", "ways"), jnp.array(True))
    for part in (part for task in drawn for part in (task.support, task.query)):
        weight = getattr(part, "weight", None)
        counts = jnp.ones(len(part.x), bool) if weight is None else weight != 0  # padding may hold anything
        for values in (part.x, part.y):
            finite = jnp.isfinite(values).reshape(len(values), -1).all(1)
            fine["finite"] &= jnp.all(finite | ~counts)
        ways = getattr(part, "ways", None)
        if ways is not None:
            inside = (part.y >= 0) & (part.y < len(ways))
            for name, each in (("labels", inside), ("ways", ~inside | ways[part.y])):
                fine[name] &= jnp.all(each.reshape(len(each), -1).all(1) | ~counts)
    held = [_plain(leaf).ravel() for leaf in jax.tree.leaves(eqx.filter(tasks.sample(key), eqx.is_array))]
    return fine, drawn, [jnp.sum(each * jnp.cos(jnp.arange(each.size))) for each in held]


def _tasks(tasks: Tasks, key: Any, of: Any) -> tuple[Any, Any]:
    world: Any = tasks.sample(key)
    return world.support.sample(of), world.query.sample(of)


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _numbers(tree: Any) -> bytes:
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))


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
    here = path.resolve()
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == here
    ]
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).resolve() == here:
        lines.append(error.lineno)
    line = lines[-1] if lines else None
    words = str(error.msg if isinstance(error, SyntaxError) else error).strip().splitlines()
    said = f"{type(error).__name__}{f': {words[0]}' if words else ''}"
    return f"{said.rstrip('.')}{f' (line {line})' if line else ''}"
