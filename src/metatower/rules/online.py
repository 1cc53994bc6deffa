"""Rules that learn their own hyper-parameters while they run, to any height."""

from functools import reduce
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from metatower.core import Rule, State, names, pick, put
from metatower.core.leaves import strong


class OnlineState(eqx.Module):
    """What an `Online` rule needs for its next step."""

    hyper: list[Array]
    """The hyper-parameters of `rule` as they are now."""
    rule: State
    """The memory of `rule`."""
    above: State
    """The memory of the rule that moves the hyper-parameters; if that is `Online` too, one like this."""
    last: tuple[State, list[Array], list[Array]]
    """The last step: the memory of `rule`, the leaves and the gradient before it."""


class Online(Rule):
    """`rule`, whose hyper-parameters are moved by the rule `above` at every step, by what the last step did with them.

    Chandra, Xie, Ragan-Kelley & Meijer 2022, "Gradient Descent: The Ultimate Optimizer", https://arxiv.org/abs/1909.13371.
    With θ_t = rule(θ_{t−1}, g_{t−1}; α_t) and the gradient g_t = ∂L/∂θ_t that now comes,

        ∂L/∂α_t = (∂θ_t/∂α_t)ᵀ g_t,        α_{t+1} = above(α_t, ∂L/∂α_t),        θ_{t+1} = rule(θ_t, g_t; α_{t+1})

    (for `sgd`: ∂L/∂α = −g_t · g_{t−1}). As `above` may itself be `Online`, and then moves its own hyper-parameters by
    ∂L/∂κ = (∂α_t/∂κ)ᵀ ∂L/∂α_t, there is a tower of rules. All that came before the last step is held fixed
    ("detached"): each level costs one vector-Jacobian product of one small step, so the cost is linear in the height,
    and no storey is nested in another. The price is a bias to what pays at the next step (Wu et al. 2018,
    "Understanding short-horizon bias in stochastic meta-optimization"). Make it with `online`.

    `limit` clamps every move of a hyper-parameter (in its logarithm, where it is a `Positive`). It is not
    differentiated, so that the level above still learns that a clamped move was too long. Tall towers need it: of those
    with five levels or more most runs end in infinities without, and 0.03 was better than 0.1
    (`benchmarks/online_towers.py`). Levels above the first should normalise their gradients, as `adam` does, whose size
    says nothing about how far a rate should move.

    Differs from the paper in: the clamp; the first step moves no hyper-parameter, as nothing came before it.
    """

    rule: Rule
    above: Rule
    limit: float | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.limit is not None and not self.limit > 0:
            raise ValueError(f"online: expected a limit above 0 or None, got {self.limit}.")
        if not pick(self.rule):
            raise ValueError(
                f"online: {type(self.rule).__name__} has no hyper-parameter that could be moved. A Python number is "
                "fixed: write `sgd(Positive(0.01))`, or `sgd(jnp.array(0.01))` where it may change its sign."
            )

    def start(self, leaves: list[Array]) -> OnlineState:
        hyper = [strong(leaf) for leaf in pick(self.rule)]
        memory = self.rule.start(leaves)
        # a gradient of zero has moved nothing and taught nothing
        last = memory, leaves, [jnp.zeros_like(leaf) for leaf in leaves]
        return OnlineState(hyper, memory, self.above.start(hyper), last)

    def step(self, state: Any, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        slope = self._blame(state, gradient)
        above, hyper = self.above.step(state.above, state.hyper, slope)
        if self.limit is not None:
            pairs = zip(state.hyper, hyper, strict=True)
            hyper = [old + jnp.clip(new - old, -self.limit, self.limit) for old, new in pairs]
        memory, moved = put(self.rule, hyper).step(state.rule, list(leaves), gradient)
        return OnlineState(hyper, memory, above, (state.rule, leaves, gradient)), moved

    def _blame(self, state: OnlineState, gradient: list[Array]) -> list[Array]:
        """How the loss depends on the hyper-parameters, through the last step alone."""
        memory, leaves, before = state.last

        def moved(hyper):
            return put(self.rule, hyper).step(memory, list(leaves), before)[1]

        return jax.vjp(moved, state.hyper)[1](gradient)[0]

    def hyper(self, state: OnlineState) -> dict[str, Array]:
        """The hyper-parameters as they are now, by name, those of all levels ("above." for each level up)."""
        found = dict(zip(names(self.rule), state.hyper, strict=True))
        if isinstance(self.above, Online):
            found |= {f"above.{name}": each for name, each in self.above.hyper(state.above).items()}
        return found


def online(*rules: Rule, limit: float | None = None) -> Rule:
    """The first rule, its hyper-parameters moved by the second while it runs, those of the second by the third, ...

    Args:
        rules: from the bottom up. All but the last need learnable hyper-parameters (`Positive(0.1)`, an array,
            `rates_for(...)`). Those of the last stay; with one rule only there is nothing to move, and it is returned.
        limit: no hyper-parameter moves by more in a step, a `Positive` in its logarithm.

    >>> from metatower import Positive, adam, sgd
    >>> rule = online(sgd(Positive(0.01)), adam(Positive(0.1), b1=0.0, b2=0.9), adam(0.01, b1=0.0, b2=0.9), limit=0.03)
    """
    if not rules:
        raise ValueError("online: expected at least one rule, got none.")
    *lower, top = rules
    return reduce(lambda above, rule: Online(rule, above, limit), reversed(lower), top)
