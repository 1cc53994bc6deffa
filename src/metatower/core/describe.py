"""A tower in words: storey by storey from the top, what each learns, how, and on what clock."""

import dataclasses
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from metatower.core.contract import Gradient, Learner, Rule
from metatower.core.leaves import names, pick, value


class Description(str):
    """A text that shows itself with its line breaks, at the prompt too."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def storeys(tower: Learner) -> list[tuple[str, Learner]]:
    """One learner per storey from the top down, each with its dotted path (empty at the top).

    Of a learner and another of the same height that it wraps, it is the outer one.
    """
    if not isinstance(tower, Learner):
        raise TypeError(
            f"expected a Learner, got {type(tower).__name__}. Make one of an objective with `Descend(objective, rule)`."
        )
    found, path, learner = [("", tower)], "", tower
    while True:
        flat, _ = jax.tree_util.tree_flatten_with_path(
            learner, is_leaf=lambda node, top=learner: isinstance(node, Learner) and node is not top
        )
        below = [(keys, node) for keys, node in flat if isinstance(node, Learner)]
        if not below:
            return found
        keys, learner = below[0]
        path = _join(path, jax.tree_util.keystr(keys, simple=True, separator="."))
        if learner.height < found[-1][1].height:
            found.append((path, learner))


def moved(learner: Learner) -> tuple[list[str], list[Array]]:
    """Paths, from `learner` on, and values of the leaves it moves by gradient; none without an objective."""
    objective = getattr(learner, "objective", None)
    if objective is None:
        return [], []
    learn = getattr(learner, "learn", None)
    return [_join("objective", name) for name in names(objective, learn)], pick(objective, learn)


def base_steps(learner: Any) -> int | None:
    """Steps of the base learner in one step of `learner`; None where the tower is not made of `Expected`.

    Counted per evaluation of the loss, times the evaluations that the gradient estimator asks for. Base steps that
    only judge a finished run count too; what reverse mode spends on its backward pass or on recomputation does not.
    """
    if learner.height == 0:
        return 1
    gradient = getattr(learner, "gradient", None)
    per_task = _base_steps_of_score(learner, gradient)
    if per_task is None:
        return None
    size = sum(leaf.size for leaf in moved(learner)[1])
    return learner.objective.batch * per_task * (1 if gradient is None else gradient.evaluations(size))


def describe(tower: Learner) -> Description:
    """What every storey of `tower` learns, its rule, its gradient and its clock, from the top down.

    Works for any `Learner`; of an unknown one it shows the learnable leaves and the steps.

    >>> import jax
    >>> from metatower import Descend, adam, lift, sgd
    >>> from metatower.nets import Linear, Supervised, squared_error
    >>> objective = Supervised(Linear(3, 2, key=jax.random.key(0)), squared_error)
    >>> maml = Descend(objective, sgd(jax.numpy.array(0.5)), steps=5)
    >>> describe(lift(maml, adam(1e-3), batch=4))
    storey 1: Descend on Expected
      learns    9 numbers in 3 arrays
                  storey 0  net.weight  [3, 2]  6
                  storey 0  net.bias    [2]     2
                  storey 0  rule.rate   []      1
      rule      Adam(rate 0.001, b1 0.9, b2 0.999, eps 1e-08)
      gradient  Unrolled
      clock     1 step here = 4 tasks x 5 steps of storey 0 = 20 base-learner steps
    storey 0: Descend on Supervised
      learns    8 numbers in 2 arrays
                  storey 0  net.weight  [3, 2]  6
                  storey 0  net.bias    [2]     2
      rule      SGD(rate 0.5 (learned by storey 1))
      gradient  Unrolled
      clock     5 steps per adaptation
    """
    floors = storeys(tower)
    top = len(floors) - 1
    prefixes = {path: top - i for i, (path, _) in enumerate(floors)}
    learners_of: dict[str, int] = {}  # full path of a leaf -> lowest storey that moves it
    for i, (path, learner) in enumerate(floors):
        learners_of.update({_join(path, name): top - i for name in moved(learner)[0]})
    lines = []
    for i, (path, learner) in enumerate(floors):
        lines += _storey(path, learner, top - i, i == 0, prefixes, learners_of)
    return Description("\n".join(lines))


def _storey(path, learner, number, is_top, prefixes, learners_of) -> list[str]:
    paths, leaves = moved(learner)
    own = [
        (p, leaf)
        for p, leaf in zip(names(learner), pick(learner), strict=True)
        if _home(_join(path, p), prefixes)[0] == number
    ]
    objective = getattr(learner, "objective", None)
    on = "" if objective is None else f" on {type(objective).__name__}"
    lines = [f"storey {number}: {type(learner).__name__}{on}"]
    if paths:
        lines.append(f"  learns    {_amount(leaves)}")
        lines += _table([_join(path, p) for p in paths], leaves, prefixes)
    else:
        lines.append("  learns    by steps of its own, without an objective to descend on")
        learned = {n for p, _ in own for n in [learners_of.get(_join(path, p))] if n is not None}
        by = f", learned by storey {min(learned)}" if learned else ""
        lines.append(f"  offers    {_amount([leaf for _, leaf in own])} to the storey above{by}")
        lines += _table([_join(path, p) for p, _ in own], [leaf for _, leaf in own], prefixes)
    for field in dataclasses.fields(learner):
        part = getattr(learner, field.name, None)
        if isinstance(part, Rule | Gradient):
            lines.append(f"  {field.name:<9} {_part(part, _join(path, field.name), learners_of)}")
    lines.append(f"  clock     {_clock(learner, number, is_top)}")
    return lines


def _clock(learner: Any, number: int, is_top: bool) -> str:
    words = [] if is_top and number > 0 else [f"{_plural(learner.steps, 'step')} per adaptation"]
    batch = getattr(getattr(learner, "objective", None), "batch", None)
    if number > 0 and batch is not None:
        below = learner.objective.learner
        here = f"1 step here = {_plural(batch, 'task')} x {_plural(below.steps, 'step')} of storey {number - 1}"
        total = base_steps(learner)
        judging = " + judging" if below.height > 0 else ""
        words.append(here if total is None else f"{here}{judging} = {_plural(total, 'base-learner step')}")
    return "; ".join(words) or f"{_plural(learner.steps, 'step')} per adaptation"


def _base_steps_of_score(learner: Any, gradient: Gradient | None = None) -> int | None:
    """Base steps of adapting the storey below to one task, as far as `gradient` plays, and judging the result."""
    below = getattr(getattr(learner, "objective", None), "learner", None)
    if below is None or not hasattr(learner.objective, "batch"):
        return None
    step = base_steps(below)
    if step is None:
        return None
    steps = below.steps if gradient is None else gradient.played(below.steps)
    if below.height == 0:
        return steps
    judging = _base_steps_of_score(below)
    if judging is None:
        return None
    return steps * step + below.objective.as_judge().batch * judging


def _table(paths: list[str], leaves: list[Array], prefixes: dict[str, int]) -> list[str]:
    """One aligned line per array; arrays of one list share a line."""
    rows: list[tuple[int, str, list[Array]]] = []
    for path, leaf in zip(paths, leaves, strict=True):
        storey, local = _home(path, prefixes)
        local = re.sub(r"\.log(?=\.|$)", "", re.sub(r"^objective\.", "", local))
        stem = re.sub(r"\.\d+$", "", local)
        listed = stem != local
        if listed and rows and rows[-1][:2] == (storey, stem):
            rows[-1][2].append(leaf)
        else:
            rows.append((storey, stem if listed else local, [leaf]))
    cells = []
    for storey, name, group in rows:
        shape = str(list(group[0].shape)) if len(group) == 1 else f"{len(group)} arrays"
        cells.append((f"storey {storey}", name, shape, f"{sum(leaf.size for leaf in group):,}"))
    widths = [max(len(cell[i]) for cell in cells) for i in range(4)] if cells else []
    return [
        " " * 14
        + "  ".join(
            text.rjust(w) if i == 3 else text.ljust(w) for i, (text, w) in enumerate(zip(cell, widths, strict=True))
        )
        for cell in cells
    ]


def _home(path: str, prefixes: dict[str, int]) -> tuple[int, str]:
    """The storey a leaf belongs to, and its path from there."""
    prefix = max((p for p in prefixes if not p or path.startswith(p + ".")), key=len)
    return prefixes[prefix], path[len(prefix) + 1 :] if prefix else path


def _part(part: Any, path: str, learners_of: dict[str, int]) -> str:
    """A rule or a gradient with the values of its fields."""
    words = []
    for field in dataclasses.fields(part):
        content = getattr(part, field.name)
        here = _join(path, field.name)
        if isinstance(content, Rule | Gradient):
            words.append(_part(content, here, learners_of))
        elif isinstance(content, bool | int | float | str):
            words.append(f"{field.name} {content}")
        elif content is not None and not callable(content) and not field.metadata.get("static", False):
            by = {n for p, n in learners_of.items() if p == here or p.startswith(here + ".")}
            words.append(f"{field.name} {_numbers(content)}" + (f" (learned by storey {min(by)})" if by else ""))
    return type(part).__name__ + (f"({', '.join(words)})" if words else "")


def _numbers(hyper: PyTree) -> str:
    """One number, or how many arrays and between which values."""
    leaves = [leaf for leaf in jax.tree.leaves(value(hyper)) if eqx.is_array_like(leaf)]
    if not leaves or any(isinstance(leaf, jax.core.Tracer | jax.ShapeDtypeStruct) for leaf in leaves):
        return "..."
    flat = jnp.concatenate([jnp.ravel(leaf).astype(float) for leaf in map(jnp.asarray, leaves)])
    low, high = float(flat.min()), float(flat.max())
    span = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    if len(leaves) == 1 and jnp.size(leaves[0]) == 1:
        return span
    shape = f"{len(leaves)} arrays" if len(leaves) > 1 else str(list(jnp.shape(leaves[0])))
    return f"{span} in {shape}"


def _amount(leaves: list[Array]) -> str:
    return f"{_plural(sum(leaf.size for leaf in leaves), 'number')} in {_plural(len(leaves), 'array')}"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name
