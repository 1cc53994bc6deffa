"""Classical agents of bandits: what they choose, and what they gain against exact values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.envs import BernoulliBandit, Seen, World
from metatower.envs.references.bandit import bayes_optimal_value, gittins_table, known_best_value
from metatower.evaluation.trials import judge_trials
from metatower.learners.bandit_agents import UCB, BestArm, Counts, EpsilonGreedy, Gittins, Greedy, RandomArm, Thompson

KEY = jax.random.key(0)
COUNTS = Counts(jnp.array([3.0, 1.0, 1.0]), jnp.array([1.0, 1.0, 3.0]))


def chosen(agent, pull=4, number=400):
    """How often each arm is chosen after `COUNTS`."""

    def one(key):
        nothing = Seen(jnp.zeros(0), jnp.zeros(3), jnp.zeros(()), jnp.ones(()))
        return agent.decide((COUNTS, jnp.array(pull)), nothing, key=key)[1]

    arms = jax.jit(jax.vmap(one))(jax.random.split(KEY, number))
    return np.bincount(arms, minlength=3) / number


def test_counts_are_of_what_was_seen():
    agent = Greedy(3)
    memory = agent.begin(key=KEY)
    for arm, reward in ((0, 1.0), (0, 0.0), (2, 1.0)):
        seen = Seen(jnp.zeros(0), jax.nn.one_hot(arm, 3), jnp.array(reward), jnp.ones(()))
        memory, _, _ = agent.decide(memory, seen, key=KEY)
    counts, pull = memory
    assert counts.successes.tolist() == [2, 1, 2]
    assert counts.failures.tolist() == [2, 1, 1]
    assert pull == 3


def test_what_they_choose():
    assert chosen(Greedy(3)).tolist() == [1, 0, 0]
    np.testing.assert_allclose(chosen(RandomArm(3), number=4000), 1 / 3, atol=0.03)
    np.testing.assert_allclose(chosen(EpsilonGreedy(3, 0.3), number=4000), [0.8, 0.1, 0.1], atol=0.03)
    assert chosen(UCB(3, 0.01)).tolist() == [1, 0, 0]
    assert chosen(UCB(3, 10.0)).tolist() == [0, 1, 0]  # the arm tried least
    # P(arm 0 is best) under Beta(3, 1), Beta(1, 1), Beta(1, 3) by sampling with NumPy
    best = np.argmax(np.random.default_rng(0).beta([3, 1, 1], [1, 1, 3], (100_000, 3)), axis=1)
    np.testing.assert_allclose(chosen(Thompson(3), number=2000), np.bincount(best) / 100_000, atol=0.04)
    assert chosen(Thompson(3, optimistic=True))[0] > chosen(Thompson(3))[0]


def test_equal_arms_are_chosen_alike():
    agent = Greedy(3)
    first = jax.vmap(lambda key: agent.decide(agent.begin(key=key), blank(), key=key)[1])(jax.random.split(KEY, 600))
    np.testing.assert_allclose(np.bincount(first) / 600, 1 / 3, atol=0.08)


def blank():
    return Seen(jnp.zeros(0), jnp.zeros(3), jnp.zeros(()), jnp.ones(()))


def test_ucb1_without_prior_tries_every_arm_first():
    agent, task = UCB(4, 2**0.5, 0.0), jnp.array([1.0, 0.0, 0.0, 0.0])
    state = agent.start(key=KEY)
    arms = []
    step = jax.jit(lambda state, key: agent.step(state, World(BernoulliBandit(4), task), key=key))
    for key in jax.random.split(KEY, 4):
        state = step(state, key)
        arms.append(int(jnp.argmax(state.action)))
    assert sorted(arms) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("agent", "least", "most"),
    [
        (RandomArm(5), 4.9, 5.1),
        (Greedy(5), 6.5, 6.70),
        (EpsilonGreedy(5), 6.4, 6.65),
        (UCB(5, 0.1), 6.5, 6.72),
        (UCB(5, 2**0.5, 0.0), 5.5, 5.8),
        (Thompson(5), 5.7, 5.95),
        (Thompson(5, optimistic=True), 5.8, 6.1),
        (Gittins(5, gittins_table(10)), 6.55, 6.75),
        (BestArm(5), 8.2, 8.4),
    ],
    ids=lambda x: type(x).__name__ if hasattr(x, "actions") else "",
)
def test_what_they_gain_in_ten_pulls_of_five_arms(agent, least, most):
    """The bounds are about four standard errors (2.2 / √4000 = 0.035 for the good ones) around known values."""
    gained = judge_trials(agent, BernoulliBandit(5), episodes=10, trials=4000, seed=0, chunk=4000)["return"]
    assert least < gained.mean() < most


def test_nobody_gains_more_than_the_best_that_can_be_known():
    value, known = bayes_optimal_value(10, 5), known_best_value(10, 5)
    assert value < known
    gained = {
        name: judge_trials(agent, BernoulliBandit(5), episodes=10, trials=4000, seed=1, chunk=4000)["return"]
        for name, agent in (("gittins", Gittins(5, gittins_table(10))), ("oracle", BestArm(5)))
    }
    # paired: the luck of the arms drawn is the same for both
    regret = gained["oracle"] - gained["gittins"]
    np.testing.assert_allclose(regret.mean(), known - value, atol=0.1)


def test_the_oracle_as_a_learner_is_told_by_its_data():
    agent = BestArm(2)
    loss, shown = agent.loss(agent.start(key=KEY), World(BernoulliBandit(2), jnp.array([0.0, 1.0])), key=KEY)
    assert (loss, shown["return"]) == (-1, 1)
