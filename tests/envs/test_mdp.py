"""Random MDPs, and what is best in them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.envs import MDP, RandomMDP, Trial
from metatower.envs.references.mdp import backward_induction, oracle_return
from metatower.evaluation.trials import judge_trials
from metatower.learners.informed import Oracle, Random
from metatower.learners.psrl import PSRL

KEY = jax.random.key(0)


def by_episode(agent, environment, **how):
    return judge_trials(agent, environment, **how)["by episode"]


def test_tasks_are_drawn_as_the_paper_says():
    tasks = jax.jit(jax.vmap(RandomMDP().sample_task))(jax.random.split(KEY, 2000))
    assert tasks.rewards.shape == (2000, 10, 5)
    assert tasks.transitions.shape == (2000, 10, 5, 10)
    np.testing.assert_allclose(tasks.rewards.mean(), 1, atol=0.01)
    np.testing.assert_allclose(tasks.rewards.std(), 1, atol=0.01)
    np.testing.assert_allclose(tasks.transitions.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(tasks.transitions.var(), 0.1 * 0.9 / 11, rtol=0.02)  # of a flat Dirichlet's entries


def test_other_distributions_of_tasks_than_the_paper_s():
    other = RandomMDP(mean=-2.0, spread=3.0, concentration=0.1)
    tasks = jax.jit(jax.vmap(other.sample_task))(jax.random.split(KEY, 2000))
    np.testing.assert_allclose(tasks.rewards.mean(), -2, atol=0.03)
    np.testing.assert_allclose(tasks.rewards.std(), 3, atol=0.03)
    np.testing.assert_allclose(tasks.transitions.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(tasks.transitions.var(), 0.1 * 0.9 / 2, rtol=0.02)  # of Dirichlet(0.1, ... 10 times)
    with pytest.raises(ValueError, match="concentration above 0, got 1"):
        RandomMDP(concentration=0.0)


def test_steps_follow_the_task():
    environment = RandomMDP(states=3, actions=2, noise=0.5)
    task = environment.sample_task(KEY)
    keys = jax.random.split(KEY, 20_000)
    state, step = jax.vmap(lambda key: environment.step(key, jnp.array(1), jnp.array(1), task))(keys)
    np.testing.assert_allclose(np.bincount(state) / 20_000, task.transitions[1, 1], atol=0.012)
    np.testing.assert_allclose(step.reward.mean(), task.rewards[1, 1], atol=0.015)
    np.testing.assert_allclose(step.reward.std(), 0.5, atol=0.01)
    np.testing.assert_array_equal(jnp.argmax(step.observation, -1), state)
    assert abs(np.corrcoef(step.reward, state)[0, 1]) < 0.03  # noise and transition are independent


def test_backward_induction_is_best_of_all_policies():
    environment = RandomMDP(states=2, actions=2, horizon=2)
    task = environment.sample_task(KEY)
    every = []
    for first, then in itertools.product(range(2), itertools.product(range(2), repeat=2)):
        after = sum(task.transitions[0, first, s] * task.rewards[s, then[s]] for s in range(2))
        every.append(task.rewards[0, first] + after)
    np.testing.assert_allclose(oracle_return(task, 2), max(every), rtol=1e-5)
    policy, value = backward_induction(task, 2)
    np.testing.assert_array_equal(policy[1], jnp.argmax(task.rewards, -1))
    np.testing.assert_allclose(value[1], jnp.max(task.rewards, -1))


def test_the_oracle_gains_its_value_and_nobody_more():
    environment, trials = RandomMDP(), 400
    keys = jax.random.split(KEY, 4000)
    value = jax.jit(jax.vmap(lambda key: oracle_return(environment.sample_task(key), 10)))(keys)
    np.testing.assert_allclose(value.mean(), 21.85, atol=0.12)  # the known value
    np.testing.assert_allclose(value.std(), 2.3, atol=0.15)
    oracle = Oracle(5, lambda plan, o, t: plan[t, jnp.argmax(o)], lambda task: backward_induction(task, 10)[0])
    played = by_episode(oracle, environment, episodes=1, trials=trials, seed=0)
    np.testing.assert_allclose(played.mean(), 21.85, atol=4 * 3.9 / np.sqrt(trials))
    chance = by_episode(Random(environment.actions), environment, episodes=1, trials=trials, seed=0)
    np.testing.assert_allclose(chance.mean(), 10, atol=4 * 4 / np.sqrt(trials))


def test_psrl_learns_within_a_trial():
    returns = by_episode(PSRL(), RandomMDP(), episodes=10, trials=150, seed=0, together=1)
    assert returns[:, 7:].mean() > returns[:, 0].mean() + 3


def test_psrl_counts_what_it_has_seen():
    agent = PSRL(states=2, actions=2, horizon=3)
    belief = agent.begin(key=KEY)
    trial = Trial(RandomMDP(2, 2, 3), episodes=2)
    sure = jnp.zeros((2, 2, 2)).at[:, :, 1].set(1.0)  # every action leads to state 1
    task = MDP(jnp.array([[1.0, 2.0], [3.0, 4.0]]), sure)
    place, seen = trial.start(KEY, task)
    tried = np.zeros((2, 2))
    decide = jax.jit(lambda belief, seen, key: agent.decide(belief, seen, key=key))
    for i in range(6):
        before = int(jnp.argmax(seen.observation))
        belief, action, _ = decide(belief, seen, jax.random.key(i))
        place, seen, _ = trial.step(jax.random.key(i), place, action, task)
        tried[before, action] += 1
    belief, _, _ = decide(belief, seen, KEY)
    np.testing.assert_array_equal(belief.tries, tried)
    assert belief.visits.sum() == 8 + 4  # of six steps, the last of either episode shows no next state
    np.testing.assert_array_equal(belief.visits[:, :, 0], jnp.ones((2, 2)))


def test_mdps_that_cannot_be():
    with pytest.raises(ValueError, match="at least one state, action and step"):
        RandomMDP(states=0)
