"""The optimum of a tabular MDP that is known: backward induction."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metatower.envs.mdp import MDP


def backward_induction(task: MDP, horizon: int) -> tuple[Int[Array, "horizon state"], Float[Array, "horizon state"]]:
    """The best action, and the expected return from then on, for each step of an episode and each state.

    V_t(s) = max_a m(s, a) + Σ P(s'|s, a) V_{t+1}(s'), V_horizon = 0. Exact.
    """

    def back(after, _):
        worth = task.rewards + task.transitions @ after
        value = jnp.max(worth, axis=-1)
        return value, (jnp.argmax(worth, axis=-1), value)

    start = jnp.zeros(task.rewards.shape[0], task.rewards.dtype)
    _, (policy, value) = jax.lax.scan(back, start, None, length=horizon, reverse=True)
    return policy, value


def oracle_return(task: MDP, horizon: int) -> Float[Array, ""]:
    """The expected return of an episode from state 0 of who knows the MDP."""
    return backward_induction(task, horizon)[1][0, 0]
