"""Swing a pendulum up whose gravity, length, mass and motor are hidden."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.envs.protocol import Box, Discrete, Environment, Step, running
from metatower.tasks.chance import uniforms

SECONDS, TORQUE, FASTEST = 0.05, 2.0, 8.0
"""Of a step; the largest torque at gain 1, N m; the largest speed, rad/s."""


class PendulumTask(eqx.Module):
    """The physics: gravity (m/s²), length (m), mass (kg), and the share of the torque that arrives."""

    gravity: Float[Array, ""]
    length: Float[Array, ""]
    mass: Float[Array, ""]
    gain: Float[Array, ""]


class Pendulum(Environment):
    """The pendulum of Gymnasium (`Pendulum-v1`), each of whose four numbers is drawn for every task.

    θ is 0 upright; θ̈ = 3g/(2l) sin θ + 3/(m l²) gain · u, u the action clipped to ±2. The reward is
    −(θ² + 0.1 θ̇² + 0.001 u²) before the step, for the torque that was asked for. Seen are cos θ, sin θ and θ̇.

    Args:
        gravity, length, mass, gain: least and largest of each.
        horizon: steps per episode.
    """

    bounds: Float[Array, "4 2"]
    horizon: int = eqx.field(static=True)

    def __init__(
        self,
        gravity: tuple[float, float] = (7.0, 13.0),
        length: tuple[float, float] = (0.7, 1.3),
        mass: tuple[float, float] = (0.7, 1.3),
        gain: tuple[float, float] = (0.7, 1.3),
        horizon: int = 200,
    ):
        bounds = {"gravity": gravity, "length": length, "mass": mass, "gain": gain}
        wrong = [
            name for name, (low, high) in bounds.items() if low > high or (low <= 0 and name in ("length", "mass"))
        ]
        if wrong or horizon < 1:
            raise ValueError(
                f"Pendulum: expected bounds in order, length and mass above 0, and at least one step; look at "
                f"{', '.join(wrong) or 'horizon'}."
            )
        self.bounds, self.horizon = jnp.array(list(bounds.values()), float), horizon

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (3,)

    @property
    def actions(self) -> Discrete | Box:
        return Box(-TORQUE, TORQUE, (1,))

    def sample_task(self, key: PRNGKeyArray) -> PendulumTask:
        (chance,) = uniforms(key, (4,))
        return PendulumTask(*(self.bounds[:, 0] + (self.bounds[:, 1] - self.bounds[:, 0]) * chance))

    def reset(self, key: PRNGKeyArray, task: PendulumTask) -> tuple[Float[Array, "2"], Float[Array, "3"]]:
        del task
        (chance,) = uniforms(key, (2,))
        state = jnp.array([math.pi, 1.0]) * (2 * chance - 1)
        return state, _shown(state)

    def step(
        self, key: PRNGKeyArray, state: Float[Array, "2"], action: Float[Array, "1"], task: PendulumTask
    ) -> tuple[Float[Array, "2"], Step]:
        del key
        angle, speed = state
        torque = jnp.clip(action[0], -TORQUE, TORQUE)
        away = jnp.mod(angle + math.pi, 2 * math.pi) - math.pi
        reward = -(away**2 + 0.1 * speed**2 + 0.001 * torque**2)
        pull = 1.5 * task.gravity / task.length * jnp.sin(angle)
        speed = speed + SECONDS * (pull + 3 * task.gain * torque / (task.mass * task.length**2))
        speed = jnp.clip(speed, -FASTEST, FASTEST)
        state = jnp.stack([angle + SECONDS * speed, speed])
        return state, running(_shown(state), reward)


def _shown(state: Float[Array, "2"]) -> Float[Array, "3"]:
    return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])
