"""Rules made of rules."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from metatower.core import Rule, State, names, pick, put, value
from metatower.core.leaves import Constant, constant_unless_array
from metatower.rules.common import half_cosine


class Counted(eqx.Module):
    """How many steps are done, and the wrapped rule's memory."""

    count: Int[Array, ""]
    rule: State


class PerStep(Rule):
    """A rule whose learnable hyper-parameters have a leading axis: one entry per step.

    Steps beyond the last entry use the last (MAML++, Antoniou et al. 2019, section 4).
    """

    rule: Rule

    def __check_init__(self):
        wrong = [n for n, leaf in zip(names(self.rule), pick(self.rule), strict=True) if leaf.ndim == 0]
        if wrong or not pick(self.rule):
            raise ValueError(
                "per_step: expected array hyper-parameters with a leading axis of steps, got "
                + (f"scalars for {', '.join(wrong)}" if wrong else "none")
                + ". Use `per_step(sgd(rates_for(objective, 0.1, steps=5)))`."
            )

    def start(self, leaves: list[Array]) -> Counted:
        return Counted(jnp.zeros((), jnp.int32), self.rule.start(leaves))

    def step(self, state: Counted, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        now = put(self.rule, [x[jnp.minimum(state.count, len(x) - 1)] for x in pick(self.rule)])
        inner, leaves = now.step(state.rule, leaves, gradient)
        return Counted(state.count + 1, inner), leaves


class Clip(Rule):
    """Scales the gradient to a global norm of at most `norm`, then applies `rule` (Pascanu et al. 2013)."""

    rule: Rule
    norm: PyTree

    def start(self, leaves: list[Array]) -> State:
        return self.rule.start(leaves)

    def step(self, state: State, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        square = sum(jnp.sum(g**2) for g in gradient)
        limit = value(self.norm)
        # the root is taken of a number that is never zero, so that its derivative stays finite
        factor = jnp.where(square > limit**2, limit / jnp.sqrt(jnp.maximum(square, limit**2)), 1.0)
        return self.rule.step(state, leaves, [g * factor for g in gradient])


class Anneal(Rule):
    """Moves as `rule` does, times a factor that falls from 1 to 0 along half a cosine between two steps.

    Loshchilov & Hutter 2017 ("SGDR", equation 5, without restarts), for whatever the wrapped rule's rates are. The two
    steps are arrays, so that trainings of any length share their compiled programs.
    """

    rule: Rule
    begin: Constant
    end: Constant

    def start(self, leaves: list[Array]) -> Counted:
        return Counted(jnp.zeros((), jnp.int32), self.rule.start(leaves))

    def step(self, state: Counted, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        inner, moved = self.rule.step(state.rule, leaves, gradient)
        factor = half_cosine(state.count, value(self.begin), value(self.end))
        leaves = [(old + factor * (new - old)).astype(old.dtype) for old, new in zip(leaves, moved, strict=True)]
        return Counted(state.count + 1, inner), leaves


class FirstSizes(eqx.Module):
    """The size of each leaf's first gradient, zero before there is one, and the wrapped rule's memory."""

    sizes: list[Float[Array, ""]]
    rule: State


class Rescaled(Rule):
    """Moves as `rule` does in units in which the first gradient of every leaf has a root mean square of 1.

        r = rms of the leaf's first gradient;   the rule sees g / r and r · θ

    A leaf that is given in other units moves as far as before, as in Newton's method. The units of the loss are not
    undone: it should be of about the same size at the start of all runs. A leaf whose first gradient is zero keeps
    its units.
    """

    rule: Rule

    def start(self, leaves: list[Array]) -> FirstSizes:
        return FirstSizes([jnp.zeros((), leaf.dtype) for leaf in leaves], self.rule.start(leaves))

    def step(self, state: FirstSizes, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        squares = [jnp.mean(g**2) for g in gradient]
        # the root is taken of a number that is never zero, so that its derivative stays finite
        now = [jnp.sqrt(jnp.where(square > 0, square, 1.0)) for square in squares]
        sizes = [jnp.where(size > 0, size, new) for size, new in zip(state.sizes, now, strict=True)]
        seen = [leaf * size for leaf, size in zip(leaves, sizes, strict=True)]
        inner, moved = self.rule.step(state.rule, seen, [g / size for g, size in zip(gradient, sizes, strict=True)])
        # what moves is added, so that a leaf that stands still keeps its bits
        steps = zip(leaves, seen, moved, sizes, strict=True)
        return FirstSizes(sizes, inner), [leaf + (new - old) / size for leaf, old, new, size in steps]


class Scaled(Rule):
    """Moves `factor` times as far as `rule` does, whatever the wrapped rule's rates are."""

    rule: Rule
    factor: PyTree

    def start(self, leaves: list[Array]) -> State:
        return self.rule.start(leaves)

    def step(self, state: State, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        state, moved = self.rule.step(state, leaves, gradient)
        factor = value(self.factor)
        return state, [(old + factor * (new - old)).astype(old.dtype) for old, new in zip(leaves, moved, strict=True)]


class Only(Rule):
    """Moves as `rule` does, but some leaves stay where they are: `learn=` for a learner that is there already."""

    rule: Rule
    moves: tuple[bool, ...] = eqx.field(static=True)

    def start(self, leaves: list[Array]) -> State:
        return self.rule.start(leaves)

    def step(self, state: State, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        state, moved = self.rule.step(state, leaves, gradient)
        return state, [new if moves else old for old, new, moves in zip(leaves, moved, self.moves, strict=True)]


class Optax(Rule):
    """Any Optax transformation as a rule. Its hyper-parameters live in closures: no storey can learn them."""

    transformation: optax.GradientTransformation = eqx.field(static=True)

    def start(self, leaves: list[Array]) -> State:
        return self.transformation.init(leaves)

    def step(self, state: State, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        updates, state = self.transformation.update(gradient, state, leaves)
        moved: Any = optax.apply_updates(leaves, updates)
        return state, moved


def per_step(rule: Rule) -> PerStep:
    """`rule` with hyper-parameters of its own for every step (leading axis of each array)."""
    return PerStep(rule)


def clip(rule: Rule, norm: PyTree = 1.0) -> Clip:
    """`rule` behind a global-norm clip; `norm` may be a number (fixed) or an array (learned)."""
    return Clip(rule, constant_unless_array(norm))


def anneal(rule: Rule, end: int, begin: int = 0) -> Anneal:
    """`rule` whose steps shrink to nothing from step `begin` to step `end`, along half a cosine.

    Raises:
        ValueError: `begin` is below 0, or not before `end`.
    """
    if not 0 <= begin < end:
        raise ValueError(f"anneal: expected 0 <= begin < end, got begin {begin} and end {end}.")
    return Anneal(rule, *(Constant(jnp.asarray(step, jnp.int32)) for step in (begin, end)))


def rescaled(rule: Rule) -> Rescaled:
    """The same rule, for leaves in any units; see `Rescaled`."""
    return Rescaled(rule)


def scaled(rule: Rule, factor: PyTree) -> Scaled:
    """`rule` with steps of `factor` times the length; a number (fixed) or an array (learned)."""
    return Scaled(rule, constant_unless_array(factor))


def only(rule: Rule, moves: Sequence[bool]) -> Only:
    """`rule`, but of the leaves in their order just those move that `moves` says."""
    return Only(rule, tuple(moves))


def from_optax(transformation: optax.GradientTransformation) -> Optax:
    """An Optax transformation as a rule, for the storeys whose hyper-parameters nobody learns."""
    return Optax(transformation)
