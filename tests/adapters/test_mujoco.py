"""Robots with other physics."""

import jax
import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium", reason="needs MuJoCo: pip install 'metatower[mujoco]'")
pytest.importorskip("mujoco", reason="needs MuJoCo: pip install 'metatower[mujoco]'")
pytest.importorskip("imageio", reason="needs MuJoCo's extra of Gymnasium: pip install 'metatower[mujoco]'")

from metatower.adapters.gymnasium import adapt  # noqa: E402
from metatower.adapters.mujoco import Physics  # noqa: E402
from metatower.core.errors import UserError  # noqa: E402
from metatower.envs import Box  # noqa: E402
from metatower.learners.informed import Random  # noqa: E402


def pendulum(**vary):
    return Physics(gymnasium.make("InvertedPendulum-v5"), vary)


def fall(env):
    env.reset(seed=0)
    return np.array([env.step(np.array([1.0]))[0] for _ in range(8)])


def test_factors_are_of_the_original_and_stay():
    env = pendulum(body_mass=(0.5, 2.0), gravity=(0.5, 1.5))
    before, mass = fall(env), env.model.body_mass.copy()
    for _ in range(2):
        env.set_task({"body_mass": 2.0})
        np.testing.assert_allclose(env.model.body_mass, 2 * mass)
    heavy = fall(env)
    np.testing.assert_allclose(env.model.body_mass, 2 * mass)  # after a reset, too
    assert np.abs(heavy - before).max() > 1e-3
    env.set_task({})
    np.testing.assert_array_equal(fall(env), before)


def test_twice_the_mass_and_force_is_the_same_motion():
    env = pendulum(body_mass=(1.0, 2.0), actuator_gear=(1.0, 2.0), dof_damping=(1.0, 2.0), dof_armature=(1.0, 2.0))
    before = fall(env)
    env.set_task(dict.fromkeys(env.vary, 2.0))
    np.testing.assert_allclose(fall(env), before, atol=1e-6)


def test_tasks_are_within_their_bounds_and_repeat():
    env = pendulum(body_mass=(0.5, 2.0))
    factors = [env.sample_task(seed)["body_mass"] for seed in range(200)]
    assert 0.5 <= min(factors) < 0.6
    assert 1.8 < max(factors) <= 2
    assert env.sample_task(3) == env.sample_task(3)


def test_an_agent_acts_in_it():
    env = Physics(gymnasium.make("HalfCheetah-v5", max_episode_steps=10), {"body_mass": (0.5, 2.0)})
    env.set_task(env.sample_task(0))
    adapted = adapt(Random(Box(-1.0, 1.0, (6,))), env, episodes=2)
    assert adapted.returns.shape == (2, 1)
    assert np.isfinite(adapted.returns).all()
    assert jax.tree.leaves(adapted.seen)[0].shape == (1, 17)


def test_physics_that_cannot_be():
    with pytest.raises(UserError, match="no field of numbers 'wheels'"):
        pendulum(wheels=(1.0, 2.0))
    with pytest.raises(UserError, match="positive factors in order"):
        pendulum(body_mass=(0.0, 2.0))
    with pytest.raises(UserError, match="factors of body_mass, got gravity"):
        pendulum(body_mass=(1.0, 2.0)).set_task({"gravity": 2.0})
    with pytest.raises(UserError, match="with a MuJoCo model"):
        Physics(gymnasium.make("CartPole-v1"), {})
