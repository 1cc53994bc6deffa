"""Rates and weight decay that a small network chooses anew at every step, from what the task has done so far."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metatower.core import Rule, State, pick
from metatower.core.leaves import Selector

STEEP = 10.0
"""What the network sees are means times this, squashed. Where it is steep, small differences become large ones within a
run, and training breaks."""
LIMIT = 2.0
"""By how much, in logarithms, the network may change the length of a step."""


class TaskConditioned(Rule):
    """θ ← β θ + α (rule(θ) − θ), with α and β of every leaf from a network of all leaves' mean gradients and weights.

    Baik, Choi, Choi, Kim & Lee 2020, "Meta-Learning with Adaptive Hyperparameters" (ALFA),
    https://arxiv.org/abs/2011.00209, equations 2 and 4:

        τ = [mean g_l, mean θ_l for every leaf l],    (a, b) = W₂ relu(W₁ τ + c),    α = exp(a),    β = 2σ(b)

    Fresh, W₂ is nought: then it does what `rule` does. Made with `task_conditioned`.

    Differs from the paper in: the factors are exponentials and twice a sigmoid, so that they start at one and stay
    positive; means are squashed, to signed logarithms where they are large; `rule` has the base rates, and
    may have memory.
    """

    rule: Rule
    first: Float[Array, "features units"]
    bias: Float[Array, " units"]
    second: Float[Array, "units leaves_twice"]

    def start(self, leaves: list[Array]) -> State:
        if 2 * len(leaves) != self.first.shape[0]:
            raise ValueError(
                f"TaskConditioned: made for {self.first.shape[0] // 2} leaves, and the rule moves {len(leaves)}. Make "
                "it with `task_conditioned(objective, rule, key=key)`, with the same `learn=` as the learner."
            )
        return self.rule.start(leaves)

    def step(self, state: State, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        means = jnp.stack([jnp.mean(each) for each in [*gradient, *leaves]])
        seen = jnp.arcsinh(STEEP * means) / 2
        says = jax.nn.relu(seen @ self.first + self.bias) @ self.second
        longer, kept = jnp.split(says, 2)
        alpha, beta = jnp.exp(LIMIT * jnp.tanh(longer / LIMIT)), 2 * jax.nn.sigmoid(kept)
        state, moved = self.rule.step(state, leaves, gradient)
        return state, [b * old + a * (new - old) for a, b, old, new in zip(alpha, beta, leaves, moved, strict=True)]


def task_conditioned(
    objective: PyTree, rule: Rule, *, key: PRNGKeyArray, units: int | None = None, learn: Selector | None = None
) -> TaskConditioned:
    """`rule` with a factor on its steps, and a decay of the weights, for each leaf and step of a task.

    Args:
        units: of the network's hidden layer; as many as it has inputs, as in the paper, if None.
        learn: the learner's selector, if it has one.
    """
    features = 2 * len(pick(objective, learn))
    units = features if units is None else units
    first = jax.random.normal(key, (features, units)) / features**0.5
    return TaskConditioned(rule, first, jnp.full(units, 0.1, first.dtype), jnp.zeros((units, features)))
