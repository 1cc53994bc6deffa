"""Cart and pole, and the pendulum: as Gymnasium has them, where their physics are its own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.envs import CartPole, Pendulum
from metatower.envs.cartpole import CartPoleTask
from metatower.envs.pendulum import PendulumTask

KEY = jax.random.key(0)


def numbers(kind, *values):
    return kind(*(jnp.array(x) for x in values))


POLE, SWING = numbers(CartPoleTask, 9.8, 1.0, 0.1, 0.5, 1.0), numbers(PendulumTask, 10.0, 1.0, 1.0, 1.0)


def test_a_step_of_the_cart_by_hand():
    state, step = CartPole().step(KEY, jnp.zeros(4), jnp.array(1), POLE)
    bend = -(10 / 1.1) / (0.5 * (4 / 3 - 0.1 / 1.1))
    drive = 10 / 1.1 - 0.05 * bend / 1.1
    np.testing.assert_allclose(state, [0, 0.02 * drive, 0, 0.02 * bend], rtol=1e-5)
    assert (step.reward, step.terminated) == (1, False)
    swapped = numbers(CartPoleTask, 9.8, 1.0, 0.1, 0.5, -1.0)
    np.testing.assert_allclose(CartPole().step(KEY, jnp.zeros(4), jnp.array(0), swapped)[0], state)


@pytest.mark.parametrize(
    ("state", "over"), [([2.41, 0, 0, 0], True), ([0, 0, 0.22, 0], True), ([2.3, 0, 0.2, 0], False)]
)
def test_when_the_pole_has_fallen(state, over):
    assert bool(CartPole().step(KEY, jnp.array(state, float), jnp.array(1), POLE)[1].terminated) == over


def test_a_step_of_the_pendulum_by_hand():
    state, step = Pendulum().step(KEY, jnp.array([0.5, -1.0]), jnp.array([7.0]), SWING)
    speed = -1 + 0.05 * (15 * np.sin(0.5) + 3 * 2)
    np.testing.assert_allclose(state, [0.5 + 0.05 * speed, speed], rtol=1e-5)
    np.testing.assert_allclose(step.reward, -(0.25 + 0.1 + 0.004), rtol=1e-5)
    np.testing.assert_allclose(step.observation, [np.cos(state[0]), np.sin(state[0]), state[1]], rtol=1e-5)


def test_both_are_gymnasiums():
    gymnasium = pytest.importorskip("gymnasium", reason="needs Gymnasium: pip install 'metatower[gymnasium]'")
    for name, ours, task in (("CartPole-v1", CartPole(), POLE), ("Pendulum-v1", Pendulum(), SWING)):
        theirs = gymnasium.make(name).unwrapped
        theirs.reset(seed=0)
        state, step_ours = jnp.asarray(theirs.state, float), eqx.filter_jit(ours.step)
        theirs.action_space.seed(0)
        for _ in range(30):
            action = theirs.action_space.sample()
            seen, reward, terminated, _, _ = theirs.step(action)
            state, step = step_ours(KEY, state, jnp.asarray(action), task)
            np.testing.assert_allclose(step.observation, seen, atol=2e-3)
            np.testing.assert_allclose(step.reward, reward, rtol=1e-2, atol=1e-3)
            assert bool(step.terminated) == terminated
            if terminated:
                break


def test_tasks_are_within_their_bounds():
    tasks = jax.jit(jax.vmap(CartPole(length=(0.3, 0.4), swapped=0.25).sample_task))(jax.random.split(KEY, 1000))
    assert ((tasks.length >= 0.3) & (tasks.length <= 0.4)).all()
    np.testing.assert_allclose((tasks.gain < 0).mean(), 0.25, atol=0.05)
    tasks = jax.jit(jax.vmap(Pendulum(gravity=(5.0, 6.0)).sample_task))(jax.random.split(KEY, 1000))
    assert ((tasks.gravity >= 5) & (tasks.gravity <= 6)).all()


def test_physics_that_cannot_be():
    with pytest.raises(ValueError, match="look at pole, length"):
        CartPole(pole=(0.0, 0.1), length=(0.5, 0.4))
    with pytest.raises(ValueError, match="look at mass"):
        Pendulum(mass=(-1.0, 1.0))
