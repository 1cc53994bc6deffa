"""The optimum of a tabular MDP that is known: backward induction."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metatower.envs.mdp import MDP, action_values


def backward_induction(task: MDP, horizon: int) -> tuple[Int[Array, "horizon state"], Float[Array, "horizon state"]]:
    """The best action, and the expected return from then on, for each step of an episode and each state.

    V_t(s) = max_a Q_t(s, a), with Q of `envs.mdp.action_values`. Exact.
    """
    worth = action_values(task, horizon)
    return jnp.argmax(worth, axis=-1), jnp.max(worth, axis=-1)


def oracle_return(task: MDP, horizon: int) -> Float[Array, ""]:
    """The expected return of an episode from state 0 of who knows the MDP."""
    return backward_induction(task, horizon)[1][0, 0]
