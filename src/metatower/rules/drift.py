"""Leaves that take learned values of their own at every step, whatever their gradient."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from metatower.core import Objective, Rule, Selector, State, names, pick
from metatower.rules.wrappers import Counted


class Drift(Rule):
    """`rule` for most leaves; the others take the next of their learned values, step by step.

    After step i such a leaf holds `values[i]` (the last one, beyond the last); before the first step it holds what
    the objective brings. Make it with `drift`.
    """

    rule: Rule
    values: list[Float[Array, "step ..."]]
    which: tuple[int, ...] = eqx.field(static=True)
    """Positions of those leaves in the list of leaves."""

    def start(self, leaves: list[Array]) -> Counted:
        return Counted(jnp.zeros((), jnp.int32), self.rule.start(leaves))

    def step(self, state: Counted, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        memory, leaves = self.rule.step(state.rule, leaves, gradient)
        for position, values in zip(self.which, self.values, strict=True):
            leaves[position] = values[jnp.minimum(state.count, len(values) - 1)]
        return Counted(state.count + 1, memory), leaves


def drift(rule: Rule, objective: Objective, learn: Selector | Any, steps: int) -> Drift:
    """`rule`, with values per step for the leaves that `learn` selects; all start from what the objective has.

    >>> import jax
    >>> from metatower import sgd
    >>> from metatower.nets import ConvNet, Supervised, cross_entropy, norms
    >>> objective = Supervised(ConvNet(5, key=jax.random.key(0)), cross_entropy)
    >>> [values.shape for values in drift(sgd(0.1), objective, norms, 3).values][:2]
    [(3, 64), (3, 64)]
    """
    every, chosen = names(objective), names(objective, learn)
    values = [jnp.repeat(leaf[None], steps, axis=0) for leaf in pick(objective, learn)]
    return Drift(rule, values, tuple(every.index(name) for name in chosen))
