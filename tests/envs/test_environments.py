"""What every environment keeps: it compiles, batches, shows what it says it shows, and gives no task away."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.envs import (
    Arm,
    BernoulliBandit,
    CartPole,
    Environment,
    GridNavi,
    Navigation,
    Pendulum,
    RandomMDP,
    Trial,
    Worlds,
)

KEY = jax.random.key(0)
ENVIRONMENTS: dict[str, Environment] = {
    "bandit": BernoulliBandit(3),
    "mdp": RandomMDP(3, 2, horizon=4),
    "gridnavi": GridNavi(horizon=4),
    "navigation": Navigation(horizon=4),
    "arm": Arm(horizon=4),
    "cartpole": CartPole(horizon=4),
    "pendulum": Pendulum(horizon=4),
}
each = pytest.mark.parametrize("name", ENVIRONMENTS)


def kinds(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@each
def test_it_shows_what_it_says_and_a_state_stays_one(name):
    environment = ENVIRONMENTS[name]

    def one(key):
        task = environment.sample_task(key)
        start = environment.reset(key, task)
        state, step = environment.step(key, start[0], environment.actions.sample(key), task)
        return start, (state, step.observation), step

    start, after, step = jax.eval_shape(one, KEY)
    assert start[1].shape == environment.observation_shape
    assert kinds(start) == kinds(after)
    assert (step.reward.shape, step.terminated.dtype, step.truncated.dtype) == ((), bool, bool)


@each
def test_a_batch_of_trials_is_each_trial_and_finite(name):
    environment = ENVIRONMENTS[name]
    trial = Trial(environment, episodes=2)

    def one(key):
        task = environment.sample_task(key)
        state, seen = trial.start(key, task)

        def move(carry, key):
            state, _ = carry
            state, seen, outcome = trial.step(key, state, environment.actions.sample(key), task)
            return (state, seen), (seen, outcome)

        return jax.lax.scan(move, (state, seen), jax.random.split(key, trial.length))[1]

    keys = jax.random.split(KEY, 3)
    together, alone = jax.jit(jax.vmap(one))(keys), jax.jit(one)(keys[1])
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5)
        assert np.isfinite(a).all()
    assert together[1].over[:, -1].all()  # shorter episodes make a shorter trial, never a longer one


@each
def test_the_first_observation_does_not_tell_the_task(name):
    environment = ENVIRONMENTS[name]
    one, other = (environment.sample_task(key) for key in jax.random.split(KEY))
    if name == "arm":  # the tip is seen, and so where its target is; what moves it is hidden
        hidden = ("masses", "inertias", "payload", "viscous", "coulomb", "gain", "fault", "tilt")
        other = dataclasses.replace(one, **{field: getattr(other, field) for field in hidden})
    assert any(bool(jnp.any(a != b)) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    seen = [environment.reset(KEY, task)[1] for task in (one, other)]
    np.testing.assert_array_equal(*seen)


@each
def test_tasks_differ_between_keys_and_not_between_calls(name):
    environment = ENVIRONMENTS[name]
    sample = eqx.filter_jit(Worlds(environment).sample)
    one, again, other = (jax.tree.leaves(sample(jax.random.key(seed)).support.task) for seed in (0, 0, 1))
    assert all(bool(jnp.all(a == b)) for a, b in zip(one, again, strict=True))
    assert any(bool(jnp.any(a != b)) for a, b in zip(one, other, strict=True))
