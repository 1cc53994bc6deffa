"""A two-link arm with hidden mechanics and faults, which has to follow a moving target."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from metatower.envs.protocol import Box, Discrete, Environment, Step, running
from metatower.tasks.chance import integer, uniforms

TORQUE = (30.0, 15.0)
"""Largest torque of shoulder and elbow, in N m, at gain 1."""
CONTROL, SUBSTEPS = 0.02, 4
"""Seconds between actions, and steps of integration in between."""
GRAVITY, STICTION, FASTEST = 9.81, 0.1, 20.0
"""m/s²; the speed, in rad/s, at which Coulomb friction is nearly whole; the largest speed of a joint."""
PERIOD = 2.0
"""Seconds in which the target goes round its circle."""
SPEED_UNIT = 5.0
"""Joint speeds are shown in this many rad/s."""


class ArmTask(eqx.Module):
    """The mechanics, hidden, and the path of the target. SI units; two numbers are those of shoulder and elbow."""

    lengths: Float[Array, "2"]
    masses: Float[Array, "2"]
    """Of the links, whose centres of mass are half way."""
    inertias: Float[Array, "2"]
    """Of the links about their centres of mass."""
    payload: Float[Array, ""]
    """A point mass at the tip."""
    viscous: Float[Array, "2"]
    coulomb: Float[Array, "2"]
    gain: Float[Array, "2"]
    """Torque that arrives, as a share of what is asked for."""
    fault: Float[Array, "2"]
    """Another factor of the torque: −1 for a joint wired the wrong way, 0.4 for a weak one, 0 for a dead one."""
    tilt: Float[Array, ""]
    """Of the plane in which the arm moves, in radians; gravity is 9.81 · sin tilt along −y."""
    path: Float[Array, "4"]
    """Of the target: its circle's bearing, distance and radius, and the phase on it."""


class Split(NamedTuple):
    """Which worlds: bands of payload (kg) without and with a fault, the share of faults, and friction (1: largest)."""

    payload: tuple[tuple[float, float], ...]
    payload_at_fault: tuple[tuple[float, float], ...]
    faults: float
    friction: tuple[float, float]


SPLITS = {
    "training": Split(((0.0, 0.4), (0.6, 1.0)), ((0.0, 0.15), (0.25, 0.4)), 0.5, (0.0, 1.0)),
    "interpolation": Split(((0.4, 0.6),), ((0.15, 0.25),), 0.5, (0.0, 1.0)),
    "extrapolation": Split(((1.0, 1.5),), ((0.0, 0.4),), 0.5, (1.0, 1.5)),
    "composition": Split(((0.6, 1.0),), ((0.6, 1.0),), 1.0, (0.0, 1.0)),
}
"""Training has neither middling nor great payloads, no great friction, and never a fault with a heavy payload."""


class ArmState(eqx.Module):
    """Joint angles (the elbow's relative to the upper arm), their speeds, and steps since the start of the episode."""

    angle: Float[Array, "2"]
    speed: Float[Array, "2"]
    time: Int[Array, ""]


class Arm(Environment):
    """Keep the tip of a two-link arm on a target that circles once in two seconds: the reward is minus their distance.

    Lengths ±30 %, masses and inertias × [½, 2], payload, viscous and Coulomb friction, actuator gains × [0.6, 1.2],
    tilt ±0.3 rad and, in half of the worlds, a faulty joint (wired the wrong way, or weak) are hidden. Seen are the
    cosines and sines of the angles, the speeds (in 5 rad/s), the vector from tip to target and the target's velocity.
    An action is the share of the largest torque, at 50 Hz. Mechanics: M(q) q̈ + c(q, q̇) + g(q) = τ − friction,
    integrated semi-implicitly (friction implicitly) in four steps per action.

    Args:
        split: "training", "interpolation", "extrapolation" or "composition", see `SPLITS`.
        faults: the factors that a faulty joint may have.
        onset: the step of each episode at which a fault sets in.
        horizon: steps per episode.
    """

    split: str = eqx.field(static=True)
    faults: tuple[float, ...] = eqx.field(static=True)
    onset: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    def __init__(
        self, split: str = "training", faults: tuple[float, ...] = (-1.0, 0.4), onset: int = 0, horizon: int = 100
    ):
        if split not in SPLITS:
            raise ValueError(f"Arm: expected a split among {', '.join(SPLITS)}, got {split!r}.")
        if not faults or onset < 0 or horizon < 1:
            raise ValueError(
                f"Arm: expected a kind of fault, an onset of at least 0 and at least one step, got {faults}, {onset}, "
                f"{horizon}."
            )
        self.split, self.faults, self.onset, self.horizon = split, tuple(faults), onset, horizon

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (10,)

    @property
    def actions(self) -> Discrete | Box:
        return Box(-1.0, 1.0, (2,))

    def sample_task(self, key: PRNGKeyArray) -> ArmTask:
        split = SPLITS[self.split]
        two, one, path = uniforms(key, (6, 2), (6,), (4,))
        lengths = 0.5 * _between(0.7, 1.3, two[0])
        masses = 2 ** _between(-1.0, 1.0, two[1])
        inertias = 2 ** _between(-1.0, 1.0, two[2]) * masses * lengths**2 / 12
        friction = _between(*split.friction, two[3:5])
        broken = one[0] < split.faults
        payload = jnp.where(broken, _banded(split.payload_at_fault, one[1:3]), _banded(split.payload, one[1:3]))
        factor = jnp.array(self.faults)[integer(one[3], len(self.faults))]
        joint = integer(one[4], 2)
        fault = jnp.where(broken & (jnp.arange(2) == joint), factor, 1.0)
        low, high = jnp.array([-0.5, 0.47, 0.05, 0.0]), jnp.array([0.5, 0.51, 0.13, 2 * math.pi])
        return ArmTask(
            lengths=lengths,
            masses=masses,
            inertias=inertias,
            payload=payload,
            viscous=0.4 * friction[0],
            coulomb=0.3 * friction[1],
            gain=_between(0.6, 1.2, two[5]),
            fault=fault,
            tilt=_between(-0.3, 0.3, one[5]),
            path=_between(low, high, path),
        )

    def reset(self, key: PRNGKeyArray, task: ArmTask) -> tuple[ArmState, Float[Array, "10"]]:
        del key
        state = ArmState(jnp.array([-1.0, 2.0]), jnp.zeros(2), jnp.zeros((), jnp.int32))
        return state, self._shown(state, task)

    def step(
        self, key: PRNGKeyArray, state: ArmState, action: Float[Array, "2"], task: ArmTask
    ) -> tuple[ArmState, Step]:
        del key
        working = jnp.where(state.time >= self.onset, task.fault, 1.0)
        torque = jnp.clip(action, -1.0, 1.0) * jnp.array(TORQUE) * task.gain * working
        angle, speed = state.angle, state.speed
        for _ in range(SUBSTEPS):
            angle, speed = integrated(task, angle, speed, torque, CONTROL / SUBSTEPS)
        state = ArmState(angle, speed, state.time + 1)
        observation = self._shown(state, task)
        return state, running(observation, -jnp.sqrt(jnp.sum(observation[6:8] ** 2)))

    def _shown(self, state, task):
        target, velocity = target_at(task, state.time)
        away = target - tip(task, state.angle)
        parts = [jnp.cos(state.angle), jnp.sin(state.angle), state.speed / SPEED_UNIT, away, velocity]
        return jnp.concatenate(parts)


def tip(task: ArmTask, angle: Float[Array, "2"]) -> Float[Array, "2"]:
    """Where the end of the arm is, the shoulder being the origin."""
    both = jnp.stack([angle[0], angle[0] + angle[1]])
    return jnp.stack([task.lengths @ jnp.cos(both), task.lengths @ jnp.sin(both)])


def target_at(task: ArmTask, time: Shaped[Array, ""]) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Place and velocity of the target after so many actions."""
    bearing, distance, radius, phase = task.path
    rate = 2 * math.pi / PERIOD
    turn = phase + rate * CONTROL * time
    centre = distance * jnp.stack([jnp.cos(bearing), jnp.sin(bearing)])
    spoke = radius * jnp.stack([jnp.cos(turn), jnp.sin(turn)])
    return centre + spoke, rate * jnp.stack([-spoke[1], spoke[0]])


def mass_matrix(task: ArmTask, angle: Float[Array, "2"]) -> Float[Array, "2 2"]:
    """M(q), kg m²."""
    (l1, l2), (m1, m2), (i1, i2), mp = task.lengths, task.masses, task.inertias, task.payload
    coupling = (m2 * l2 / 2 + mp * l2) * l1 * jnp.cos(angle[1])
    lower = i2 + m2 * (l2 / 2) ** 2 + mp * l2**2
    upper = i1 + m1 * (l1 / 2) ** 2 + (m2 + mp) * l1**2
    off = lower + coupling
    return jnp.stack([jnp.stack([upper + lower + 2 * coupling, off]), jnp.stack([off, lower])])


def bias(task: ArmTask, angle: Float[Array, "2"], speed: Float[Array, "2"]) -> Float[Array, "2"]:
    """c(q, q̇) + g(q): Coriolis and centrifugal torques, and gravity's, N m."""
    (l1, l2), (m1, m2), mp = task.lengths, task.masses, task.payload
    outer = m2 * l2 / 2 + mp * l2
    h = outer * l1 * jnp.sin(angle[1])
    coriolis = h * jnp.stack([-(2 * speed[0] + speed[1]) * speed[1], speed[0] ** 2])
    pull = GRAVITY * jnp.sin(task.tilt)
    elbow = outer * jnp.cos(angle[0] + angle[1])
    shoulder = (m1 * l1 / 2 + (m2 + mp) * l1) * jnp.cos(angle[0])
    return coriolis + pull * jnp.stack([shoulder + elbow, elbow])


def drag(task: ArmTask, speed: Float[Array, "2"]) -> Float[Array, "2"]:
    """Friction per speed: viscous + coulomb · tanh(|q̇| / 0.1) / |q̇|, N m s."""
    fast = jnp.maximum(jnp.abs(speed), 1e-3 * STICTION)
    return task.viscous + task.coulomb * jnp.tanh(fast / STICTION) / fast


def integrated(
    task: ArmTask, angle: Float[Array, "2"], speed: Float[Array, "2"], torque: Float[Array, "2"], seconds: float
) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Angles and speeds a little later: (M + h D) q̇' = M q̇ + h (τ − c − g), q' = q + h q̇'."""
    mass = mass_matrix(task, angle)
    right = mass @ speed + seconds * (torque - bias(task, angle, speed))
    a, b, d = mass[0, 0], mass[0, 1], mass[1, 1]
    extra = seconds * drag(task, speed)
    a, d = a + extra[0], d + extra[1]
    speed = jnp.stack([d * right[0] - b * right[1], a * right[1] - b * right[0]]) / (a * d - b * b)
    speed = jnp.clip(speed, -FASTEST, FASTEST)
    return angle + seconds * speed, speed


def _between(low, high, chance):
    return low + (high - low) * chance


def _banded(bands: tuple[tuple[float, float], ...], chance: Float[Array, "2"]) -> Float[Array, ""]:
    """A number in one of these bands, each as likely as any other."""
    low, high = jnp.array(bands)[integer(chance[0], len(bands))]
    return _between(low, high, chance[1])
