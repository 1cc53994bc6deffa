"""Controllers of the two-link arm: with the true mechanics, with the nominal ones, and with none."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metatower.envs.arm import PERIOD, SPEED_UNIT, TORQUE, ArmTask, bias, drag, mass_matrix

STIFFNESS, DAMPING = 300.0, 30.0
"""Of the error, 1/s² and 1/s."""
NEAR_SINGULAR = 1e-3
"""m⁴, added to the squared determinant of the Jacobian: a stretched arm is not thrown about."""


def nominal() -> ArmTask:
    """The arm of the data sheet: the middle of the training range, without fault. Its path means nothing."""
    two, half = jnp.ones(2), 0.5 * jnp.ones(2)
    return ArmTask(
        lengths=half,
        masses=two,
        inertias=two * 0.5**2 / 12,
        payload=jnp.array(0.5),
        viscous=0.2 * two,
        coulomb=0.15 * two,
        gain=0.9 * two,
        fault=two,
        tilt=jnp.zeros(()),
        path=jnp.zeros(4),
    )


def computed_torque(model: ArmTask, observation: Float[Array, "10"], time: Int[Array, ""]) -> Float[Array, "2"]:
    """The action by which the tip of an arm with these mechanics would follow the target with decaying error.

    Computed torque in the coordinates of the tip (Khatib 1987, "A unified approach for motion and force control of
    robot manipulators"): τ = M J⁻¹ (ẍ* + K e + D ė − J̇ q̇) + c + g + friction, divided by what arrives of it. Given the
    true task this is the oracle; it is no strict upper bound, as torques are limited. With `nominal()` it is what a
    person would build who trusts the data sheet.
    """
    del time
    angle, speed, away, velocity = _read(observation)
    jacobian, drift = _jacobian(model.lengths, angle, speed)
    rate = 2 * math.pi / PERIOD
    ahead = rate * jnp.stack([-velocity[1], velocity[0]])  # of a target on a circle
    wanted = ahead + STIFFNESS * away + DAMPING * (velocity - jacobian @ speed) - drift
    determinant = jacobian[0, 0] * jacobian[1, 1] - jacobian[0, 1] * jacobian[1, 0]
    adjugate = jnp.stack([jnp.stack([jacobian[1, 1], -jacobian[0, 1]]), jnp.stack([-jacobian[1, 0], jacobian[0, 0]])])
    turned = adjugate @ wanted * determinant / (determinant**2 + NEAR_SINGULAR)
    torque = mass_matrix(model, angle) @ turned + bias(model, angle, speed) + drag(model, speed) * speed
    arrives = model.gain * model.fault
    return jnp.clip(torque / jnp.where(arrives == 0, 1.0, arrives) / jnp.array(TORQUE), -1.0, 1.0)


def proportional(model: ArmTask, observation: Float[Array, "10"], time: Int[Array, ""]) -> Float[Array, "2"]:
    """A spring and a damper between tip and target, by the lengths of the model alone: τ = Jᵀ (K e + D ė)."""
    del time
    angle, speed, away, velocity = _read(observation)
    jacobian, _ = _jacobian(model.lengths, angle, speed)
    torque = jacobian.T @ (STIFFNESS * away + DAMPING * (velocity - jacobian @ speed))
    return jnp.clip(torque / jnp.array(TORQUE), -1.0, 1.0)


def _read(observation):
    angle = jnp.arctan2(observation[2:4], observation[0:2])
    return angle, observation[4:6] * SPEED_UNIT, observation[6:8], observation[8:10]


def _jacobian(lengths, angle, speed):
    """The derivative of the tip by the angles, and what its change adds to the acceleration."""
    both = jnp.stack([angle[0], angle[0] + angle[1]])
    turning = jnp.stack([speed[0], speed[0] + speed[1]])
    x, y = lengths * jnp.cos(both), lengths * jnp.sin(both)
    jacobian = jnp.stack([jnp.stack([-y[0] - y[1], -y[1]]), jnp.stack([x[0] + x[1], x[1]])])
    return jacobian, -jnp.stack([x @ turning**2, y @ turning**2])
