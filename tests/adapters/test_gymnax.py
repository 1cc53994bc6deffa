"""Environments of gymnax, with their parameters as the task."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("gymnax", reason="needs gymnax: pip install 'metatower[gymnax]'")

from metatower.adapters.gymnax import Gymnax
from metatower.core.errors import UserError
from metatower.envs import Box, CartPole, Discrete, Trial
from metatower.envs.cartpole import CartPoleTask

KEY = jax.random.key(0)


def consistent(params):
    total, moment = params.masscart + params.masspole, params.masspole * params.length
    return params.replace(total_mass=total, polemass_length=moment)


def pole(**how):
    return Gymnax("CartPole-v1", {"length": (0.3, 0.8), "masscart": (0.5, 2.0)}, derive=consistent, **how)


def test_tasks_are_drawn_and_made_consistent():
    params, _ = jax.vmap(pole().sample_task)(jax.random.split(KEY, 500))
    assert ((params.length >= 0.3) & (params.length <= 0.8)).all()
    assert params.length.std() > 0.1
    np.testing.assert_allclose(params.total_mass, params.masscart + params.masspole, rtol=1e-6)
    np.testing.assert_array_equal(params.gravity, jnp.full(500, 9.8))


def test_a_cart_of_gymnax_is_ours():
    environment = pole()
    params, key = environment.sample_task(KEY)
    task = CartPoleTask(params.gravity, params.masscart, params.masspole, params.length, params.force_mag / 10)
    step, ours = eqx.filter_jit(environment.step), eqx.filter_jit(CartPole().step)
    state, seen = environment.reset(KEY, (params, key))
    for action in (1, 1, 0, 1, 0, 0):
        expected, told = ours(KEY, seen, jnp.array(action), task)
        state, shown = step(KEY, state, jnp.array(action), (params, key))
        np.testing.assert_allclose(shown.observation, expected, rtol=1e-4, atol=1e-6)
        assert (bool(shown.terminated), bool(shown.truncated)) == (bool(told.terminated), False)
        seen = shown.observation


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "MountainCar-v0"])
def test_trials_keep_their_task_and_truncate_at_the_horizon(name):
    environment = Gymnax(name, horizon=5)
    trial = Trial(environment, episodes=2)

    @jax.jit
    @jax.vmap
    def run(key):
        task = environment.sample_task(key)
        state, seen = trial.start(key, task)

        def move(carry, key):
            state, _ = carry
            state, seen, outcome = trial.step(key, state, environment.actions.sample(key), task)
            return (state, seen), (seen, outcome)

        return jax.lax.scan(move, (state, seen), jax.random.split(key, 10))[1]

    seen, outcome = run(jax.random.split(KEY, 3))
    assert seen.observation.shape == (3, 10, *environment.observation_shape)
    assert outcome.truncated[0].tolist() == [False] * 4 + [True] + [False] * 4 + [True]
    assert not outcome.terminated.any()
    assert outcome.over[:, -1].all()


def test_an_end_is_no_time_limit():
    environment = Gymnax("CartPole-v1")
    task = environment.sample_task(KEY)
    state, _ = environment.reset(KEY, task)
    step = eqx.filter_jit(environment.step)
    for _ in range(30):  # always to the same side: it falls
        state, shown = step(KEY, state, jnp.array(1), task)
        if shown.terminated:
            break
    assert shown.terminated
    assert not shown.truncated


def test_a_goal_that_is_drawn_in_reset_can_be_kept():
    def goals(environment):
        task = environment.sample_task(KEY)
        return [jax.tree.leaves(environment.reset(key, task)[0]) for key in jax.random.split(KEY, 3)]

    same = goals(Gymnax("PointRobot-misc", same_reset=True))
    other = goals(Gymnax("PointRobot-misc"))
    assert all(np.array_equal(a, b) for a, b in zip(same[0], same[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(other[0], other[1], strict=True))


def test_spaces():
    assert Gymnax("CartPole-v1").actions == Discrete(2)
    assert Gymnax("Pendulum-v1").actions == Box((-2.0,), (2.0,), (1,))
    assert Gymnax("Pendulum-v1").observation_shape == (3,)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Gymnax("CartPole-v9"), "gymnax has no environment 'CartPole-v9'"),
        (lambda: Gymnax("CartPole-v1", {"wheels": (1.0, 2.0)}), "has no parameters wheels; it has .*gravity"),
    ],
)
def test_what_is_not_there(make, error):
    with pytest.raises(UserError, match=error):
        make()
