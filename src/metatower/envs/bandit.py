"""Bernoulli bandits: the arms that pay differ from task to task."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.envs.protocol import Discrete, Solvable, Step
from metatower.tasks.chance import uniforms


class BernoulliBandit(Solvable):
    """k arms, p_i ~ U[low, high] each; a pull of arm i pays 1 with probability p_i, else 0. An episode is one pull.

    Duan et al. 2016, "RL²: Fast reinforcement learning via slow reinforcement learning",
    https://arxiv.org/abs/1611.02779, section 3.1 (low 0, high 1); `Trial(BernoulliBandit(5), episodes=10)` is their
    n = 10, k = 5. There is nothing to observe: observations are empty. The task is the array of p, `[k]`.

    Args:
        arms: k.
        low, high: bounds of the probabilities.
    """

    bounds: Float[Array, "2"]
    arms: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    def __init__(self, arms: int = 5, low: float = 0.0, high: float = 1.0):
        if arms < 1 or not 0 <= low <= high <= 1:
            raise ValueError(f"BernoulliBandit: expected an arm and 0 <= low <= high <= 1, got {arms}, {low}, {high}.")
        self.bounds, self.arms, self.horizon = jnp.array([low, high]), arms, 1

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (0,)

    @property
    def actions(self) -> Discrete:
        return Discrete(self.arms)

    def sample_task(self, key: PRNGKeyArray) -> Float[Array, " k"]:
        (chance,) = uniforms(key, (self.arms,))
        return self.bounds[0] + (self.bounds[1] - self.bounds[0]) * chance

    def reset(self, key: PRNGKeyArray, task: Float[Array, " k"]) -> tuple[None, Float[Array, "0"]]:
        del key, task
        return None, jnp.zeros((0,))

    def step(
        self, key: PRNGKeyArray, state: None, action: Int[Array, ""], task: Float[Array, " k"]
    ) -> tuple[None, Step]:
        (chance,) = uniforms(key, ())
        p = task[action]
        reward = jnp.where(jnp.isnan(p), p, (chance < p).astype(p.dtype))
        return state, Step(jnp.zeros((0,)), reward, jnp.asarray(True), jnp.asarray(False))

    def solve(self, task: Float[Array, " k"]) -> Float[Array, " k"]:
        return task - jnp.max(task)

    def shortfall(self, solution: Float[Array, " k"], state: None, moves: Int[Array, ""]) -> Float[Array, " k"]:
        del state, moves
        return solution
