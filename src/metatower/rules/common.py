"""What the rules share: one hyper-parameter spread over the list of leaves it acts on, and how one falls to zero."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from metatower.core import Constant, Positive, Selector, names, pick, value


class PerLeaf(eqx.Module):
    """One number per leaf that a rule moves, kept in one array `[leaf]`, or `[step, leaf]` under `per_step`.

    One array rather than a list: the storeys above then have one leaf to move where they would have dozens, which
    makes their programs much smaller.
    """

    numbers: PyTree
    """An array, or a `Positive` or `Constant` of one."""


def spread(hyper: PyTree, leaves: list[Array], name: str) -> list[Array | float]:
    """One value of the hyper-parameter per leaf, from a single value or from values aligned with the leaves."""
    if isinstance(hyper, PerLeaf):
        row = value(hyper.numbers)
        numbers = [row[..., i] for i in range(row.shape[-1])]
    else:
        numbers = value(hyper)
    if not isinstance(numbers, list):
        return [numbers] * len(leaves)
    if len(numbers) != len(leaves):
        raise ValueError(
            f"{name} is a list of {len(numbers)} values, but the rule moves {len(leaves)} leaves. "
            "Make it with `rates_for(objective, ...)`, with the same `learn=` as the learner."
        )
    return numbers


def half_cosine(count: Array, begin: int | Array, end: int | Array) -> Array:
    """What falls from 1 to 0 along half a cosine while `count` goes from `begin` to `end`.

    >>> half_cosine(jnp.array([0, 10, 15, 20, 30]), 10, 20).round(3).tolist()
    [1.0, 1.0, 0.5, 0.0, 0.0]
    """
    done = jnp.clip((count - begin) / (end - begin), 0, 1)
    return 0.5 * (1 + jnp.cos(jnp.pi * done))


def rates_for(
    objective: PyTree,
    rate: float,
    *,
    per: str = "leaf",
    steps: int | None = None,
    learn: Selector | None = None,
    overrides: tuple[tuple[Selector, float], ...] = (),
    learned: bool = True,
) -> PyTree:
    """Rates aligned with the leaves that a rule will move, learned through their logarithms.

    Args:
        objective: what the rule descends on.
        rate: the value to start from.
        per: "leaf" for one rate per array (LSLR, MAML++), "parameter" for one per number (Meta-SGD).
        steps: if given, one set of rates per step, in a leading axis; wrap the rule in `per_step`.
        learn: the learner's selector, if it has one.
        overrides: pairs of a selector and another value to start from.
        learned: False for rates that no storey learns.

    Returns:
        A `PerLeaf`, or a list with an array per leaf: what `sgd`, `momentum` and `adam` take as a rate.
    """
    if per not in ("leaf", "parameter"):
        raise ValueError(f"rates_for: expected per='leaf' or per='parameter', got {per!r}.")
    wrap = Positive if learned else Constant
    starts = dict.fromkeys(names(objective, learn), rate)
    for selector, other in overrides:
        starts.update(dict.fromkeys(names(objective, selector), other))
    leading = () if steps is None else (steps,)
    if per == "leaf":
        row = jnp.asarray([starts[name] for name in names(objective, learn)])
        return PerLeaf(wrap(jnp.broadcast_to(row, (*leading, len(row)))))
    pairs = zip(names(objective, learn), pick(objective, learn), strict=True)
    return wrap([jnp.full((*leading, *leaf.shape), starts[name], leaf.dtype) for name, leaf in pairs])
