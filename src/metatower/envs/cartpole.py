"""Balance a pole whose gravity, masses, length and motor are hidden."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.envs.protocol import Discrete, Environment, Step
from metatower.tasks.chance import uniforms

SECONDS, FORCE, WIDE, STEEP = 0.02, 10.0, 2.4, 12 * 2 * math.pi / 360
"""Of a step; the push at gain 1, N; how far the cart may go, m; how far the pole may lean, rad."""


class CartPoleTask(eqx.Module):
    """The physics: gravity (m/s²), the masses of cart and pole (kg), half the pole's length (m), the push's factor."""

    gravity: Float[Array, ""]
    cart: Float[Array, ""]
    pole: Float[Array, ""]
    length: Float[Array, ""]
    gain: Float[Array, ""]


class CartPole(Environment):
    """The cart and pole of Barto, Sutton & Anderson 1983, as in Gymnasium (`CartPole-v1`), each number drawn per task.

    Actions push left or right; in some worlds (`swapped`) the other way round, which cannot be seen but only tried.
    Every step pays 1; the episode ends when the cart is 2.4 m away or the pole leans 12°. Seen are place, speed, angle
    and its speed. Euler's method, 50 Hz.

    Args:
        gravity, cart, pole, length, gain: least and largest of each.
        swapped: the share of worlds where the pushes are the other way round.
        horizon: steps per episode.
    """

    bounds: Float[Array, "5 2"]
    swapped: Float[Array, ""]
    horizon: int = eqx.field(static=True)

    def __init__(
        self,
        gravity: tuple[float, float] = (7.0, 13.0),
        cart: tuple[float, float] = (0.5, 2.0),
        pole: tuple[float, float] = (0.05, 0.5),
        length: tuple[float, float] = (0.25, 1.0),
        gain: tuple[float, float] = (0.5, 1.5),
        swapped: float = 0.5,
        horizon: int = 200,
    ):
        bounds = {"gravity": gravity, "cart": cart, "pole": pole, "length": length, "gain": gain}
        physical = ("cart", "pole", "length")
        wrong = [name for name, (low, high) in bounds.items() if low > high or (low <= 0 and name in physical)]
        if wrong or horizon < 1 or not 0 <= swapped <= 1:
            raise ValueError(
                "CartPole: expected bounds in order, masses and length above 0, a share from 0 to 1 and at least one "
                f"step; look at {', '.join(wrong) or 'swapped and horizon'}."
            )
        self.bounds, self.swapped, self.horizon = jnp.array(list(bounds.values()), float), jnp.array(swapped), horizon

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (4,)

    @property
    def actions(self) -> Discrete:
        return Discrete(2)

    def sample_task(self, key: PRNGKeyArray) -> CartPoleTask:
        (chance,) = uniforms(key, (6,))
        gravity, cart, pole, length, gain = self.bounds[:, 0] + (self.bounds[:, 1] - self.bounds[:, 0]) * chance[:5]
        return CartPoleTask(gravity, cart, pole, length, jnp.where(chance[5] < self.swapped, -gain, gain))

    def reset(self, key: PRNGKeyArray, task: CartPoleTask) -> tuple[Float[Array, "4"], Float[Array, "4"]]:
        del task
        (chance,) = uniforms(key, (4,))
        state = 0.05 * (2 * chance - 1)
        return state, state

    def step(
        self, key: PRNGKeyArray, state: Float[Array, "4"], action: Int[Array, ""], task: CartPoleTask
    ) -> tuple[Float[Array, "4"], Step]:
        del key
        _x, speed, angle, turning = state
        push = FORCE * task.gain * jnp.where(action == 1, 1.0, -1.0)
        total, sine, cosine = task.cart + task.pole, jnp.sin(angle), jnp.cos(angle)
        shared = (push + task.pole * task.length * turning**2 * sine) / total
        bend = (task.gravity * sine - cosine * shared) / (task.length * (4.0 / 3.0 - task.pole * cosine**2 / total))
        drive = shared - task.pole * task.length * bend * cosine / total
        state = state + SECONDS * jnp.stack([speed, drive, turning, bend])
        fallen = (jnp.abs(state[0]) > WIDE) | (jnp.abs(state[2]) > STEEP)
        return state, Step(state, jnp.ones(()), fallen, jnp.asarray(False))
