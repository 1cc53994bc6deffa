"""The cheapest exact setting of a tower whose step fits into a given memory."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from metatower.core import Data, Descend, Expected, Learner, Unrolled
from metatower.core.errors import UserError
from metatower.core.plan import Cost, cost, scaled
from metatower.gradients.mixed import MixedMode

SETTINGS: dict[str, Callable[[bool], Unrolled]] = {
    "kept": lambda top: Unrolled(remat=False),
    "remat": lambda top: Unrolled(remat=True),
    "mixed": lambda top: Unrolled(remat=False) if top else MixedMode(remat=False),
    "mixed, in segments": lambda top: Unrolled(False, "sqrt") if top else MixedMode(remat=False),
    "mixed, in segments, with remat": lambda top: Unrolled(True, "sqrt") if top else MixedMode(True, "sqrt"),
}
"""Name: the gradient of the top storey (True) and of those below it."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """A tower and what one step of it needs."""

    tower: Learner
    """The tower in its new setting: the same learner, up to rounding."""
    setting: str
    chunk: int | None
    """Tasks that the top storey works on at the same time; None where it has no tasks."""
    predicted: int
    """Bytes, before the chosen program itself was compiled."""
    memory: int
    """Bytes that XLA reports for the compiled step: working memory, what goes in and what comes out."""
    flops: float

    def __str__(self) -> str:
        count = "" if self.chunk is None else f", {self.chunk} task{'s'[: self.chunk != 1]} at a time"
        return f"{self.setting}{count}: {_bytes(self.memory)}"


def fit(tower: Learner, tasks: Data, memory: int) -> Fit:
    """The setting of `tower`, of those with exact gradients, that fits one step into `memory` bytes for fewest FLOPs.

    The tower stays as it is where that fits. Otherwise the storeys with an exact gradient (`Unrolled`, `MixedMode`)
    get one of `SETTINGS`, and the top storey works on fewer of its tasks at a time: on the largest part, of those that
    divide them, that fits, and at least on one or two; where even one is too much, the storeys below do so too. Nothing
    is run, but programs are compiled: each setting with one and two tasks at a time, from which larger chunks follow,
    as memory is linear in the chunk; and the chosen one.

    Args:
        tower: any learner; only what is made of `Descend` and `Expected` is changed.
        tasks: what the top storey's `step` takes.
        memory: bytes for working memory, inputs and outputs of one step on one device; programs and Python come on top.

    Raises:
        UserError: no setting fits; it says the least that is possible.
    """
    here = _cost(tower, tasks)
    objective = getattr(tower, "objective", None)
    tiled = isinstance(objective, Expected)
    if _total(here) <= memory:
        chunk = (objective.chunk or objective.batch) if tiled else None
        return Fit(tower, "as it is", chunk, _total(here), _total(here), here.flops)
    candidates = [(name, _crossed(tower, make)) for name, make in SETTINGS.items()] if tiled else []
    if tower.height > 1:
        candidates += [(f"{name}, 1 task at a time below", _one_below(each)) for name, each in candidates]
    priced = [(_cost(each, tasks, compile=False).flops, i, name, each) for i, (name, each) in enumerate(candidates)]
    least, of = _total(here), "as it is"
    for flops, _, name, candidate in sorted(priced, key=lambda each: each[:2]):
        one = _total(_cost(_in_chunks(candidate, 1), tasks))
        if one < least:
            least, of = one, f"{name}, 1 task at a time"
        if one > memory:
            continue
        return _largest(candidate, name, tasks, memory, one, flops)
    raise UserError(
        f"No exact setting fits a step of this tower into {_bytes(memory)}: the least is {_bytes(least)} ({of}). "
        "Give it more memory; or take fewer steps, examples or weights; or an estimator that is not exact "
        "(`Truncated`, `FirstOrder`, `Evolution`)."
    )


def _largest(candidate: Any, name: str, tasks: Data, memory: int, one: int, flops: float) -> Fit:
    """The largest chunk that fits, given that one task at a time needs `one` bytes, which do."""
    batch = candidate.objective.batch
    best = Fit(_in_chunks(candidate, 1), name, 1, one, one, flops)
    if batch == 1:
        return best
    two = _total(_cost(_in_chunks(candidate, 2), tasks))
    if two > memory:
        return best
    # all tasks at once are a program without a loop, of which smaller chunks say little
    for chunk in (n for n in range(batch // 2, 2, -1) if batch % n == 0):
        predicted = two + (chunk - 2) * (two - one)
        if predicted <= memory:
            chosen = _in_chunks(candidate, chunk)
            found = _total(_cost(chosen, tasks))
            if found <= memory:
                return Fit(chosen, name, chunk, predicted, found, flops)
    return Fit(_in_chunks(candidate, 2), name, 2, two, two, flops)


def _crossed(learner: Any, make: Callable[[bool], Unrolled], top: bool = True) -> Any:
    """`learner` with new gradients where they are exact ones, on all storeys."""
    if not isinstance(learner, Descend):
        return learner
    gradient = make(top) if isinstance(learner.gradient, Unrolled) else learner.gradient
    objective = learner.objective
    if isinstance(objective, Expected):
        objective = dataclasses.replace(objective, learner=_crossed(objective.learner, make, False))
    return dataclasses.replace(learner, objective=objective, gradient=gradient)


def _one_below(tower: Any) -> Any:
    """`tower` with all storeys but the top working on one task at a time."""
    below = tower.objective.learner
    if not isinstance(below, Descend) or not isinstance(below.objective, Expected):
        return tower
    objective = dataclasses.replace(tower.objective, learner=_in_chunks(_one_below(below), 1))
    return dataclasses.replace(tower, objective=objective)


def _in_chunks(tower: Any, chunk: int) -> Any:
    return dataclasses.replace(tower, objective=dataclasses.replace(tower.objective, chunk=chunk))


def _cost(tower: Learner, tasks: Data, compile: bool = True) -> Cost:
    return cost(tower, tasks, tower.height, jax.random.key(0), compile)


def _total(cost: Cost) -> int:
    return sum(size or 0 for size in (cost.temporary, cost.arguments, cost.outputs))


def _bytes(size: int) -> str:
    return scaled(size, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))
