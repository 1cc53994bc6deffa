"""What the rules share: one hyper-parameter spread over the list of leaves it acts on."""

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from metatower.core import Positive, Selector, names, pick, value


def spread(hyper: PyTree, leaves: list[Array], name: str) -> list[Array | float]:
    """One value of the hyper-parameter per leaf, from a single value or from a list aligned with the leaves."""
    numbers = value(hyper)
    if not isinstance(numbers, list):
        return [numbers] * len(leaves)
    if len(numbers) != len(leaves):
        raise ValueError(
            f"{name} is a list of {len(numbers)} values, but the rule moves {len(leaves)} leaves. "
            "Make it with `rates_for(objective, ...)`, with the same `learn=` as the learner."
        )
    return numbers


def rates_for(
    objective: PyTree,
    rate: float,
    *,
    per: str = "leaf",
    steps: int | None = None,
    learn: Selector | None = None,
    overrides: tuple[tuple[Selector, float], ...] = (),
) -> Positive:
    """Learnable rates aligned with the leaves that a rule will move.

    Args:
        objective: what the rule descends on.
        rate: the value to start from.
        per: "leaf" for one rate per array (LSLR, MAML++), "parameter" for one per number (Meta-SGD).
        steps: if given, one set of rates per step, in a leading axis; wrap the rule in `per_step`.
        learn: the learner's selector, if it has one.
        overrides: pairs of a selector and another value to start from.

    Returns:
        A `Positive`, learned through logarithms; `Constant(value(...))` fixes it.
    """
    if per not in ("leaf", "parameter"):
        raise ValueError(f"rates_for: expected per='leaf' or per='parameter', got {per!r}.")
    starts = dict.fromkeys(names(objective, learn), rate)
    for selector, other in overrides:
        starts.update(dict.fromkeys(names(objective, selector), other))
    leading = () if steps is None else (steps,)
    return Positive(
        [
            jnp.full(leading + (leaf.shape if per == "parameter" else ()), starts[name], leaf.dtype)
            for name, leaf in zip(names(objective, learn), pick(objective, learn), strict=True)
        ]
    )
