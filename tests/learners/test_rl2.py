"""Agents that remember, and their training over whole trials."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import guess, key

from metatower import adam, lift, sgd
from metatower.core import pick, put
from metatower.core.sharding import Sharded, shard
from metatower.envs import BernoulliBandit, Discrete, Environment, Seen, Step, Trial, World, Worlds
from metatower.gradients import Evolution
from metatower.learners import PPO, RL2, rl2
from metatower.learners.acting import play
from metatower.learners.ppo import advantages
from metatower.rules import clip


def test_episodes_played_as_steps_are_told_what_a_trial_tells():
    agent = rl2(guess(), key=key(1), size=3, steps=3)
    told = []

    def note(*parts):
        told.append(np.concatenate([np.ravel(part) for part in parts]))

    class Spy(RL2):
        def decide(self, memory, seen, *, key):
            jax.debug.callback(note, seen.observation, seen.action, seen.reward, seen.done, ordered=True)
            return super().decide(memory, seen, key=key)

    spy = Spy(agent.net, agent.actions, steps=3)
    world = World(guess(), jnp.array(1.2))
    state = spy.start(key=key(0))
    for i in range(3):
        state = spy.step(state, world, key=key(i))
    jax.effects_barrier()
    alone, told[:] = np.stack(told), []
    # the first step of a trial knows nothing; the first of a later episode knows how the one before has ended
    np.testing.assert_array_equal(alone[0], [1, 0, 0, 0, 0, 1])
    for first in (2, 4):
        assert alone[first][-1] == 1
        assert alone[first][1:4].sum() == 1
        np.testing.assert_allclose(alone[first][4], -((1.2 - np.argmax(alone[first][1:4])) ** 2), rtol=1e-5)
    assert [row[-1] for row in alone] == [1, 0, 1, 0, 1, 0]
    # and a trial of three episodes, made to take the same actions, tells the same
    played = play(agent, Trial(guess(), episodes=3), jnp.array(1.2), key=key(0))
    np.testing.assert_array_equal(played.seen.done[:-1], [1, 0, 1, 0, 1, 0])
    assert played.seen.reward[2] == played.outcome.reward[1]
    assert bool(played.outcome.over[-1])


def test_memory_is_kept_between_episodes_and_fresh_in_each_trial():
    agent = rl2(guess(), key=key(1), size=3)
    world = World(guess(), jnp.array(1.2))
    fresh = agent.start(key=key(0))
    once = agent.step(fresh, world, key=key(1))
    again = agent.step(once, world, key=key(1))
    assert not np.allclose(once.memory, fresh.memory)
    assert not np.allclose(again.memory, once.memory)
    np.testing.assert_array_equal(agent.start(key=key(5)).memory, fresh.memory)


def test_what_an_agent_is_not_told_it_cannot_know():
    agent = rl2(guess(), key=key(1), size=3)
    blind = dataclasses.replace(agent, inputs=("observation", "action", "done"))
    one, other = (Seen(jnp.ones(1), jnp.zeros(3), jnp.array(r), jnp.array(0.0)) for r in (0.0, 5.0))
    assert not np.allclose(agent.told(one), agent.told(other))
    np.testing.assert_array_equal(blind.told(one), blind.told(other))
    with pytest.raises(ValueError, match="inputs among observation, action, reward, done, got rewards"):
        dataclasses.replace(agent, inputs=("rewards",))


def test_the_derivative_of_a_loss_is_that_of_the_expected_return():
    # one pull, two arms: E[return] = Σ π(a) p(a), of which the derivative is known
    environment, p = BernoulliBandit(2), jnp.array([0.9, 0.2])
    agent = rl2(environment, key=jax.random.key(0), size=2)
    leaves = pick(agent)

    def exact(leaves):
        agent_ = put(agent, leaves)
        seen = Seen(jnp.zeros(0), jnp.zeros(2), jnp.zeros(()), jnp.ones(()))
        return -jax.nn.softmax(agent_.net(agent_.net.start(), agent_.told(seen))[1].logits) @ p

    def estimate(key):
        def loss(leaves):
            agent_ = put(agent, leaves)
            return agent_.loss(agent_.start(key=key), World(environment, p), key=key)[0]

        return jax.grad(loss)(leaves)

    found = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(1), 20_000))
    for estimates, truth in zip(found, jax.grad(exact)(leaves), strict=True):
        error = estimates.std(axis=0) / len(estimates) ** 0.5
        assert np.all(np.abs(estimates.mean(axis=0) - truth) < 5 * error + 1e-6)


def test_an_agent_learns_in_a_world_played_elsewhere():
    agent = rl2(guess(), key=key(1), size=3)
    state = agent.start(key=key(0))
    seen = Seen(jnp.ones(1), jnp.zeros(3), jnp.zeros(()), jnp.ones(()))
    after, action = agent.act(state, seen, key=key(2))
    assert action.shape == ()
    assert 0 <= int(action) < 3
    assert not np.allclose(after.memory, state.memory)
    with pytest.raises(Exception, match=r"World\(environment, task\)`, got float|Type-check error"):
        agent.step(state, 1.0, key=key(0))


def test_advantages_by_hand():
    rewards, values = jnp.array([1.0, 0.0, 2.0]), jnp.array([0.5, 1.0, 1.5])
    after, over = jnp.array([1.0, 1.5, 0.0]), jnp.array([False, False, True])
    # δ = r + γ V' − V with γ = ½: 1, −¼, ½; A = δ + γ λ A' with λ = ½
    np.testing.assert_allclose(advantages(rewards, values, after, over, 0.5, 0.5), [1 - 0.125 / 4, -0.125, 0.5])
    # nothing comes back over the end of a trial
    cut = advantages(rewards, values, jnp.array([0.0, 1.5, 0.0]), jnp.array([True, False, True]), 0.5, 0.5)
    np.testing.assert_allclose(cut, [0.5, -0.125, 0.5])


def _lesson(endless: bool):
    agent = rl2(guess(), key=key(1), size=3)
    ppo = PPO(agent, sgd(0.1), episodes=2, trials=3, minibatches=1, discount=1.0, trace=0.0, endless=endless)
    played = jax.vmap(lambda k: play(agent, Trial(guess(), episodes=2), jnp.array(1.2), key=k))(
        jax.random.split(jax.random.key(0), 3)
    )
    return agent, played, ppo._lesson(agent, played)


@pytest.mark.parametrize("endless", [False, True])
def test_values_cross_the_ends_of_episodes_and_those_of_trials_only_if_endless(endless):
    agent, played, lesson = _lesson(endless)
    values = played.about["value"]
    # λ = 0, γ = 1: what the value should have been is r + V', also over the end of the first episode (step 1 of 0..3)
    np.testing.assert_allclose(
        lesson.returned[:, :3], played.outcome.reward[:, :3] + values[:, 1:], rtol=1e-4, atol=1e-5
    )
    end = 0.0
    if endless:
        end = jax.vmap(agent.over)(played.seen)[1][:, -1]
    np.testing.assert_allclose(lesson.returned[:, 3], played.outcome.reward[:, 3] + end, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("signal", ["reward", "regret"])
def test_ppo_learns_a_bandit_and_judges_it_on_fresh_trials(signal):
    environment = BernoulliBandit(2)
    how = {"trials": 128, "minibatches": 2, "trace": 0.3, "signal": signal}
    trainer = PPO(rl2(environment, key=key(0), size=16), clip(adam(1e-2), 0.5), 6, **how)
    step = eqx.filter_jit(lambda state, k: trainer.update(state, Worlds(environment), key=k))
    state = trainer.start(key=key(0))
    for k in jax.random.split(jax.random.key(1), 60):
        state, metrics = step(state, k)
    judged = dataclasses.replace(trainer, judged=4000)
    gained = -eqx.filter_jit(judged.loss)(state, Worlds(environment), key=key(3))[0]
    # random: 3; exact optimum for 6 pulls of 2 arms: 3.508; the larger part of the way there
    assert gained > 3.35
    assert 0 <= float(metrics["entropy"]) < np.log(2)


class Which(Environment):
    """Two arms, of which the same one always pays 1; the other never does."""

    horizon: int = eqx.field(static=True, default=1)

    @property
    def observation_shape(self):
        return (0,)

    @property
    def actions(self):
        return Discrete(2)

    def sample_task(self, key):
        return jax.random.bernoulli(key).astype(jnp.int32)

    def reset(self, key, task):
        return None, jnp.zeros(0)

    def step(self, key, state, action, task):
        return None, Step(jnp.zeros(0), (action == task).astype(jnp.float32), jnp.asarray(True), jnp.asarray(False))


def test_evolution_trains_it_with_no_further_code():
    environment = Which()
    agent = rl2(environment, key=jax.random.key(0), size=4, steps=1)
    trainer = lift(agent, adam(0.1), batch=64, gradient=Evolution(pairs=8, sigma=0.2), judged=1000)
    step = eqx.filter_jit(lambda state, k: trainer.step(state, Worlds(environment), key=k))
    loss = eqx.filter_jit(lambda state: trainer.loss(state, Worlds(environment), key=key(3))[0])
    state = trainer.start(key=key(0))
    before = loss(state)
    for k in jax.random.split(jax.random.key(1), 80):
        state = step(state, k)
    # the second of two pulls, after a first that only counts for what it tells: ½ at random, 1 at best
    assert -0.55 < before < -0.45
    assert loss(state) < -0.9


@pytest.mark.parametrize(("count", "weight"), [(2, 0.8), (4, 0.4), (6, 0.0)])
def test_the_weight_of_the_entropy_falls_to_zero_where_it_shall_settle(count, weight):
    environment = BernoulliBandit(3)
    agent, how = rl2(environment, key=key(0), size=4), {"trials": 8, "minibatches": 2}
    falling, fixed = PPO(agent, sgd(0.5), 4, entropy=0.8, settle=(2, 6), **how), PPO(agent, sgd(0.5), 4, **how)
    state = dataclasses.replace(falling.start(key=key(0)), count=jnp.asarray(count))
    moved, expected = (
        eqx.filter_jit(each.update)(state, Worlds(environment), key=key(1))[0]
        for each in (falling, dataclasses.replace(fixed, entropy=weight))
    )
    for a, b in zip(moved.leaves, expected.leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert moved.count == count + 1


@pytest.mark.parametrize("chunk", [1, 2, 3, 6, 7])
def test_trials_in_chunks_move_as_all_at_once(chunk):
    environment = BernoulliBandit(3)
    how = {"trials": 12, "minibatches": 2, "epochs": 1}
    trainer = PPO(rl2(environment, key=key(0), size=4), sgd(0.5), 4, **how)
    state = trainer.start(key=key(0))
    (one, numbers), (other, others) = (
        eqx.filter_jit(each.update)(state, Worlds(environment), key=key(1))
        for each in (trainer, dataclasses.replace(trainer, chunk=chunk))
    )
    for a, b in zip(one.leaves, other.leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for name in numbers:
        np.testing.assert_allclose(numbers[name], others[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("signal", ["reward", "regret"])
def test_shared_between_devices_a_step_is_the_same(signal):
    environment = BernoulliBandit(3)
    how = {"trials": 12, "epochs": 2, "minibatches": 2, "judged": 6, "signal": signal}
    trainer = PPO(rl2(environment, key=key(0), size=4), sgd(0.5), 4, **how)
    shared = shard(trainer, 3)
    assert isinstance(shared, Sharded)
    assert shared.tower.shared is not None
    assert isinstance(shard(dataclasses.replace(trainer, trials=14), 3), PPO)  # seven parts: for one device only
    state, k = trainer.start(key=key(0)), jax.random.key(2)
    one, metrics = eqx.filter_jit(trainer.update)(state, Worlds(environment), key=k)
    three, other = eqx.filter_jit(shared.update)(state, Worlds(environment), key=k)
    for a, b in zip(one.leaves, three.leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for name in metrics:
        np.testing.assert_allclose(metrics[name], other[name], rtol=1e-4, atol=1e-5)
    losses = [eqx.filter_jit(each.loss)(state, Worlds(environment), key=k)[0] for each in (trainer, shared)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_misuse_is_answered():
    agent = rl2(guess(), key=key(1), size=3)
    with pytest.raises(ValueError, match="10 trials do not make 4 minibatches"):
        PPO(agent, sgd(0.1), 2, trials=10, minibatches=4)
    with pytest.raises(ValueError, match="expected episodes of at least 1, got 0"):
        PPO(agent, sgd(0.1), 0)
    with pytest.raises(ValueError, match="expected settle as"):
        PPO(agent, sgd(0.1), 2, settle=(5, 5))
