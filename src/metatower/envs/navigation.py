"""A point in the plane with a hidden goal."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.envs.protocol import Box, Discrete, Environment, Step
from metatower.tasks.chance import uniforms


class Navigation(Environment):
    """Go to a hidden goal g ~ U[−0.5, 0.5]² from the origin, by velocities clipped to ±0.1 per axis.

    Finn et al. 2017, "Model-agnostic meta-learning", https://arxiv.org/abs/1703.03400, section 5.3. The reward is minus
    the distance after the move, an episode ends when both coordinates are within 0.01 of the goal, or after 100 steps.
    The position is observed; the task is the goal.

    Args:
        reach: the largest coordinate of a goal.
        speed: the largest move per axis.
        near: how near each coordinate must be.
        horizon: steps per episode.
    """

    reach: Float[Array, ""]
    speed: float = eqx.field(static=True)
    near: float = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    def __init__(self, reach: float = 0.5, speed: float = 0.1, near: float = 0.01, horizon: int = 100):
        if min(reach, speed) <= 0 or near < 0 or horizon < 1:
            raise ValueError(
                f"Navigation: expected reach and speed above 0, near at least 0 and at least one step, got {reach}, "
                f"{speed}, {near}, {horizon}."
            )
        self.reach, self.speed, self.near, self.horizon = jnp.array(float(reach)), float(speed), float(near), horizon

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (2,)

    @property
    def actions(self) -> Discrete | Box:
        return Box(-self.speed, self.speed, (2,))

    def sample_task(self, key: PRNGKeyArray) -> Float[Array, "2"]:
        (chance,) = uniforms(key, (2,))
        return self.reach * (2 * chance - 1)

    def reset(self, key: PRNGKeyArray, task: Float[Array, "2"]) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
        del key, task
        return jnp.zeros(2), jnp.zeros(2)

    def step(
        self, key: PRNGKeyArray, state: Float[Array, "2"], action: Float[Array, "2"], task: Float[Array, "2"]
    ) -> tuple[Float[Array, "2"], Step]:
        del key
        state = state + jnp.clip(action, -self.speed, self.speed)
        away = state - task
        arrived = jnp.all(jnp.abs(away) < self.near)
        return state, Step(state, -jnp.sqrt(jnp.sum(away**2)), arrived, jnp.asarray(False))
