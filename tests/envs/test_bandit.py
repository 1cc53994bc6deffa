"""Bernoulli bandits, and what is known of them exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.envs import BernoulliBandit
from metatower.envs.references.bandit import bayes_optimal_value, gittins_table, known_best_value, random_value

KEY = jax.random.key(0)


def test_an_arm_pays_as_often_as_its_task_says():
    bandit, task = BernoulliBandit(3), jnp.array([0.0, 0.3, 1.0])
    keys = jax.random.split(KEY, 20_000)
    for arm, p in enumerate(task):
        _, step = jax.vmap(lambda key, arm=arm: bandit.step(key, None, jnp.array(arm), task))(keys)
        assert step.terminated.all()
        assert not step.truncated.any()
        np.testing.assert_allclose(step.reward.mean(), p, atol=3 * 0.46 / np.sqrt(20_000))
        assert set(np.unique(step.reward)) <= {0.0, 1.0}


def test_probabilities_are_uniform_between_the_bounds():
    tasks = np.asarray(jax.vmap(BernoulliBandit(2, 0.2, 0.6).sample_task)(jax.random.split(KEY, 5000)))
    assert 0.2 <= tasks.min() < 0.21
    assert 0.59 < tasks.max() <= 0.6
    np.testing.assert_allclose(tasks.mean(0), 0.4, atol=0.006)
    np.testing.assert_allclose(np.corrcoef(tasks.T)[0, 1], 0, atol=0.05)


def test_a_task_that_is_no_number_pays_none():
    _, step = BernoulliBandit(2).step(KEY, None, jnp.array(1), jnp.array([0.5, jnp.nan]))
    assert jnp.isnan(step.reward)


@pytest.mark.parametrize("wrong", [(0,), (3, 0.5, 0.4), (3, -0.1), (3, 0.0, 1.1)])
def test_bandits_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="expected an arm and 0 <= low <= high <= 1"):
        BernoulliBandit(*wrong)


def test_the_bayes_optimal_value_by_hand():
    assert bayes_optimal_value(0, 3) == 0
    assert bayes_optimal_value(1, 3) == 0.5
    assert bayes_optimal_value(7, 1) == 3.5
    # two pulls: stay after a success (⅔), change after a failure (½)
    np.testing.assert_allclose(bayes_optimal_value(2, 2), 0.5 + 0.5 * 2 / 3 + 0.5 * 0.5)


@pytest.mark.parametrize(
    ("pulls", "arms", "known"), [(10, 5, 6.6600), (10, 10, 6.7140), (10, 50, 6.7140), (10, 2, 6.02179)]
)
def test_the_bayes_optimal_value_is_the_known_one(pulls, arms, known):
    np.testing.assert_allclose(bayes_optimal_value(pulls, arms), known, atol=5e-5)


def test_more_is_known_of_values():
    assert known_best_value(10, 4) == 8
    assert random_value(10) == 5
    assert random_value(10) < bayes_optimal_value(10, 5) < known_best_value(10, 5)


def test_gittins_indices_by_hand():
    table = gittins_table(5, levels=2000)
    for won, lost in ((0, 0), (2, 1), (0, 3)):  # with one pull left an arm is worth its mean
        np.testing.assert_allclose(table[1, won, lost], (won + 1) / (won + lost + 2), atol=5e-4)
    # two left, nothing known: ½ (1 + max(⅔, λ)) + ½ max(⅓, λ) = 2 λ at λ = 5/9
    np.testing.assert_allclose(table[2, 0, 0], 5 / 9, atol=5e-4)
    assert (np.diff(table[1:, 0, 0]) > 0).all()  # the more pulls are left, the more is there to be learned


def test_a_table_too_long_is_refused():
    with pytest.raises(ValueError, match="expected 1 to 150 pulls, got 500"):
        gittins_table(500)
