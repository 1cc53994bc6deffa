"""Adam, safe to differentiate through."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from metatower.core import Rule, State
from metatower.core.leaves import constant_unless_array
from metatower.rules.common import spread


class AdamState(eqx.Module):
    """Adam's memory."""

    count: Float[Array, ""]
    first: list[Array]
    second: list[Array]


class Adam(Rule):
    """Kingma & Ba 2015, algorithm 1.

    Differs from the paper in where ε stands: θ ← θ − rate · m̂ / √(v̂ + ε²). At v̂ = 0 this has the paper's
    value and finite derivatives, so that a tower may differentiate through it from the first step on. Each further
    derivative at a gradient of exactly zero is larger by a power of 1/ε: in single precision give a tower of more than
    two storeys above an Adam an ε of 1e-4 or more.
    """

    rate: PyTree
    b1: PyTree
    b2: PyTree
    eps: PyTree

    def start(self, leaves: list[Array]) -> AdamState:
        spread(self.rate, leaves, "adam: rate")
        zeros = [jnp.zeros_like(leaf) for leaf in leaves]
        return AdamState(jnp.zeros((), leaves[0].dtype), zeros, zeros)

    def step(self, state: AdamState, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        rates, b1s, b2s, epss = (
            spread(getattr(self, name), leaves, f"adam: {name}") for name in ("rate", "b1", "b2", "eps")
        )
        count = state.count + 1
        first = [b * m + (1 - b) * g for m, b, g in zip(state.first, b1s, gradient, strict=True)]
        second = [b * v + (1 - b) * g**2 for v, b, g in zip(state.second, b2s, gradient, strict=True)]

        def move(leaf, rate, m, v, b1, b2, eps):
            return leaf - rate * (m / (1 - b1**count)) / jnp.sqrt(v / (1 - b2**count) + eps**2)

        moved = [move(*each) for each in zip(leaves, rates, first, second, b1s, b2s, epss, strict=True)]
        return AdamState(count, first, second), moved


def adam(rate: PyTree, b1: PyTree = 0.9, b2: PyTree = 0.999, eps: PyTree = 1e-8) -> Adam:
    """Adam; every hyper-parameter may be a number (fixed) or an array (learned), as in `sgd`."""
    return Adam(*(constant_unless_array(hyper) for hyper in (rate, b1, b2, eps)))
