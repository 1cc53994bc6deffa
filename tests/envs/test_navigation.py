"""The point with a hidden goal, and what is best for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.envs import Navigation
from metatower.envs.references.navigation import oracle_action, oracle_return, oracle_returns, stay_return
from metatower.evaluation.trials import judge_trials
from metatower.learners.informed import Oracle

KEY = jax.random.key(0)


def by_episode(agent, environment, **how):
    return judge_trials(agent, environment, **how)["by episode"]


def test_moves_are_clipped_and_cost_the_distance_left():
    environment, goal = Navigation(), jnp.array([0.3, -0.02])
    state, seen = environment.reset(KEY, goal)
    np.testing.assert_array_equal(seen, [0, 0])
    state, step = environment.step(KEY, state, jnp.array([0.5, -0.02]), goal)
    np.testing.assert_allclose(step.observation, [0.1, -0.02], rtol=1e-6)
    np.testing.assert_allclose(step.reward, -0.2, rtol=1e-5)
    assert not step.terminated
    state, _ = environment.step(KEY, state, jnp.array([0.1, 0.0]), goal)
    _, step = environment.step(KEY, state, jnp.array([0.095, 0.005]), goal)
    assert step.terminated  # both coordinates are within 0.01
    _, step = environment.step(KEY, state, jnp.array([0.085, 0.0]), goal)
    assert not step.terminated


def test_goals_are_uniform():
    goals = jax.vmap(Navigation().sample_task)(jax.random.split(KEY, 5000))
    assert (jnp.abs(goals) <= 0.5).all()
    np.testing.assert_allclose(goals.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(goals.std(0), 1 / np.sqrt(12), atol=0.01)


def test_the_known_values():
    np.testing.assert_allclose(stay_return(Navigation()), -38.26, atol=0.005)
    np.testing.assert_allclose(oracle_return(Navigation(), points=200), -0.51, atol=0.005)


def test_the_oracle_by_hand():
    # 0.25 away along one axis: 0.15, 0.05, there
    np.testing.assert_allclose(oracle_returns(Navigation(), np.array([[0.25, 0.0], [0.0, -0.05]])), [-0.2, 0.0])


def test_played_they_are_worth_what_they_should():
    environment = Navigation()
    oracle = by_episode(Oracle(2, oracle_action), environment, episodes=1, trials=2000, seed=0)
    np.testing.assert_allclose(oracle.mean(), -0.51, atol=0.03)
    np.testing.assert_allclose(oracle.std(), 0.34, atol=0.03)
    stay = by_episode(Oracle(2, lambda task, seen, time: jnp.zeros(2)), environment, episodes=1, trials=2000, seed=0)
    np.testing.assert_allclose(stay.mean(), -38.26, atol=1.3)


def test_navigation_that_cannot_be():
    with pytest.raises(ValueError, match="reach and speed above 0"):
        Navigation(reach=0.0)
