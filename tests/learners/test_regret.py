"""Learning from what each action is known to cost: the same objective, less noise, and the agent sees none of it."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import guess, key

from metatower import sgd
from metatower.core import pick, put
from metatower.core.keys import fork
from metatower.envs import BernoulliBandit, GridNavi, RandomMDP, Seen, Trial, World, Worlds
from metatower.envs.references.mdp import oracle_return
from metatower.learners import PPO, rl2
from metatower.learners.acting import play
from metatower.learners.ppo import shortfall


def test_what_any_policy_gains_is_the_optimum_and_its_shortfalls():
    # every course of an episode of three steps, under a policy that draws from whatever table its whole past points to
    environment = RandomMDP(states=2, actions=2, horizon=3)
    task = environment.sample_task(jax.random.key(0))
    solution = environment.solve(task)
    table = np.random.default_rng(0).dirichlet([1, 1], size=10_000)
    gained = short = 0.0
    for course in itertools.product(range(2), repeat=6):  # action, next state, action, ...
        chance, state, earned, lost = 1.0, 0, 0.0, 0.0
        for t, (action, after) in enumerate(zip(course[::2], course[1::2], strict=True)):
            past = hash(course[: 2 * t]) % len(table)
            chance *= table[past, action] * float(task.transitions[state, action, after])
            earned += float(task.rewards[state, action])
            lost += float(environment.shortfall(solution, jnp.array(state), jnp.array(t))[action])
            state = after
        gained, short = gained + chance * earned, short + chance * lost
    assert short < -0.5
    np.testing.assert_allclose(gained, float(oracle_return(task, 3)) + short, rtol=1e-5)


@pytest.mark.parametrize("environment", [RandomMDP(3, 3, horizon=4), BernoulliBandit(4)], ids=["mdp", "bandit"])
def test_in_trials_the_shortfalls_are_the_returns_without_their_noise(environment):
    agent, episodes = rl2(environment, key=key(1), size=8), 3

    @jax.jit
    @jax.vmap
    def both(k):
        key_task, key_play = fork(k, 2)
        task = environment.sample_task(key_task)
        world = World(environment, task)
        played = play(agent, Trial(environment, episodes=episodes), task, key=key_play, note=shortfall(world))
        best = oracle_return(task, 4) if isinstance(environment, RandomMDP) else jnp.max(task)
        lost = jnp.take_along_axis(played.noted, played.action[:, None], axis=1)
        return jnp.sum(played.outcome.reward) - episodes * best, jnp.sum(lost), jnp.max(played.noted)

    gained, lost, most = both(jax.random.split(jax.random.key(0), 20_000))
    off = np.asarray(gained - lost)
    assert abs(off.mean()) < 4 * off.std() / len(off) ** 0.5
    assert lost.mean() < -0.5
    assert lost.std() < gained.std()
    np.testing.assert_allclose(most, 0, atol=1e-5)


def expected_return(agent, leaves, arms, pulls):
    """Of an agent with these leaves, over all courses of a trial of bandits."""
    courses = np.array(list(itertools.product(range(arms), range(2), repeat=pulls))).reshape(-1, pulls, 2)
    chances = np.ones(len(courses))
    for n, course in enumerate(courses):
        counts = np.ones((arms, 2))  # of failures and successes, from a uniform prior
        for arm, paid in course:
            chances[n] *= counts[arm, paid] / counts[arm].sum()
            counts[arm, paid] += 1
    actions, rewards = courses[..., 0], courses[..., 1].astype(np.float32)

    def score(action, reward):
        before = jnp.concatenate([jnp.zeros((1, arms)), jax.nn.one_hot(action, arms)[:-1]])
        earned = jnp.concatenate([jnp.zeros(1), reward[:-1]])
        seen = jax.vmap(lambda a, r: Seen(jnp.zeros(0), a, r, jnp.ones(())))(before, earned)
        return jnp.sum(put(agent, leaves).over(seen)[0].log_probability(action))

    return jnp.sum(jnp.exp(jax.vmap(score)(actions, rewards)) * chances * rewards.sum(axis=1))


@pytest.mark.parametrize("signal", ["reward", "regret"])
def test_without_discount_its_gradient_is_that_of_the_expected_return(signal):
    environment, arms, pulls, trials = BernoulliBandit(2), 2, 3, 60_000
    agent = rl2(environment, key=key(0), size=4)
    # what was seen must matter, as it does to no fresh network
    agent = eqx.tree_at(lambda a: a.net.memory.inside, agent, 4 * agent.net.memory.inside)
    agent = eqx.tree_at(lambda a: a.net.actor.linear.weight, agent, 500 * agent.net.actor.linear.weight)
    exact = jax.grad(lambda leaves: expected_return(agent, leaves, arms, pulls))(pick(agent))
    ppo = PPO(
        agent, sgd(1.0), pulls, trials=trials, minibatches=1, discount=1.0, trace=1.0, entropy=0.0, value=0.0,
        signal=signal,
    )  # fmt: skip

    @jax.jit
    def estimate(k):
        played = ppo._play(agent, Worlds(environment), k, trials, watched=signal == "regret")
        lesson = ppo._lesson(agent, played)
        unit = jnp.std(lesson.returned - played.about["value"]) / jnp.std(lesson.advantage)
        gradient, _ = ppo._gradient(pick(agent), lesson, 0.0)
        return jax.tree.map(lambda g: -pulls * unit * g, gradient)

    found = [np.concatenate([np.ravel(x) for x in estimate(k)]) for k in jax.random.split(jax.random.key(7), 6)]
    exact = np.concatenate([np.ravel(x) for x in exact])
    off, noise = np.mean(found, axis=0) - exact, np.std(found, axis=0, ddof=1) / len(found) ** 0.5
    assert np.linalg.norm(exact) > 0.1
    assert np.linalg.norm(noise) < 0.04 * np.linalg.norm(exact)
    assert np.linalg.norm(off) < 3 * np.linalg.norm(noise)


def test_the_agent_sees_the_same_whatever_is_learned_from():
    environment = RandomMDP(3, 2, horizon=4)
    agent = rl2(environment, key=key(1), size=4)
    ppo = PPO(agent, sgd(0.1), 2, trials=6, minibatches=2)
    worlds = Worlds(environment)
    plain = ppo._play(agent, worlds, jax.random.key(3), 6)
    told = dataclasses.replace(ppo, signal="regret")._play(agent, worlds, jax.random.key(3), 6, watched=True)
    assert told.noted.shape == (6, 8, 2)
    told = eqx.tree_at(lambda played: played.noted, told, None)
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(told), strict=True):
        np.testing.assert_array_equal(one, other)
    # and what it is judged by are the rewards
    losses = [
        dataclasses.replace(ppo, signal=signal).loss(ppo.start(key=key(0)), worlds, key=jax.random.key(4))[0]
        for signal in ("reward", "regret")
    ]
    np.testing.assert_array_equal(*losses)


def test_misuse_is_answered():
    agent = rl2(guess(), key=key(1), size=3)
    with pytest.raises(Exception, match=r"signal as 'reward' or 'regret', got 'regrets'|Type-check error"):
        PPO(agent, sgd(0.1), 2, signal="regrets")
    grid = GridNavi()
    trainer = PPO(rl2(grid, key=key(1), size=3), sgd(0.1), 2, trials=4, signal="regret")
    with pytest.raises(TypeError, match="GridNavi is none"):
        trainer.update(trainer.start(key=key(0)), Worlds(grid), key=key(1))
