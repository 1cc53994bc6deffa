"""Gradient descent, plain and with momentum."""

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from metatower.core import Rule, State
from metatower.core.leaves import constant_unless_array
from metatower.rules.common import spread


class SGD(Rule):
    """θ ← θ − rate · g."""

    rate: PyTree

    def start(self, leaves: list[Array]) -> State:
        spread(self.rate, leaves, "sgd: rate")
        return None

    def step(self, state: State, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        rates = spread(self.rate, leaves, "sgd: rate")
        return state, [leaf - rate * g for leaf, rate, g in zip(leaves, rates, gradient, strict=True)]


class Momentum(Rule):
    """m ← decay · m + g;  θ ← θ − rate · m."""

    rate: PyTree
    decay: PyTree

    def start(self, leaves: list[Array]) -> State:
        spread(self.rate, leaves, "momentum: rate")
        return [jnp.zeros_like(leaf) for leaf in leaves]

    def step(self, state: State, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        rates = spread(self.rate, leaves, "momentum: rate")
        decays = spread(self.decay, leaves, "momentum: decay")
        velocity = [decay * m + g for m, decay, g in zip(state, decays, gradient, strict=True)]
        return velocity, [leaf - rate * m for leaf, rate, m in zip(leaves, rates, velocity, strict=True)]


def sgd(rate: PyTree) -> SGD:
    """Gradient descent.

    Args:
        rate: a Python number (fixed), an array (learned by the storey above), a `Positive` (learned through
            its logarithm), or a list of these, one per leaf (`rates_for` makes it).
    """
    return SGD(constant_unless_array(rate))


def momentum(rate: PyTree, decay: PyTree = 0.9) -> Momentum:
    """Gradient descent with heavy-ball momentum (Polyak 1964); hyper-parameters as in `sgd`."""
    return Momentum(constant_unless_array(rate), constant_unless_array(decay))
