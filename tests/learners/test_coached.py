"""Coached trainings: what a coach may change, what it sees, and that a resting one changes nothing."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.core import lift, pick
from metatower.core.keys import fork
from metatower.envs import BanditFamily, BernoulliBandit, Worlds
from metatower.gradients import Evolution
from metatower.learners import PPO, Coached, rl2
from metatower.learners.coached import LIMIT, levers
from metatower.nets.coach import LEVERS, NOTED, Coach, Drift, ManagerCoach, Wanderer, resting
from metatower.rules import adam, clip, sgd

pytestmark = pytest.mark.usefixtures("quick_compile")

WORLDS = Worlds(BernoulliBandit(2))
KEY = jax.random.key(0)


def trainer(**options) -> PPO:
    agent = rl2(BernoulliBandit(2), key=jax.random.key(1), size=3, steps=4)
    return PPO(agent, clip(adam(0.01), 0.5), 4, trials=8, epochs=2, minibatches=2, **options)


def coached(coach: Coach, ppo: PPO | None = None, **options) -> Coached:
    ppo = ppo or trainer()
    return Coached(ppo, coach, levers(ppo), **{"steps": 3, "horizon": 3, **options})


def drift(*by: float) -> Drift:
    return Drift(jnp.array(by))


def weights(learner: Coached, steps: int, key=KEY) -> np.ndarray:
    state, step = learner.start(key=key), eqx.filter_jit(learner.step)
    for k in jax.random.split(key, steps):
        state = step(state, WORLDS, key=k)
    return np.concatenate([np.ravel(leaf) for leaf in state.practice.leaves])


class Told(Coach):
    """Keeps what it is told, and changes nothing."""

    def start(self):
        return jnp.zeros(NOTED), jnp.zeros((), bool)

    def advise(self, memory, noted, turn, *, key):
        del memory, key
        return (noted, turn), jnp.zeros(len(LEVERS))


def test_at_rest_a_coached_training_is_the_trainers_own():
    at_rest = coached(resting(ManagerCoach(key=KEY)))
    still = weights(coached(drift(0.0, 0.0, 0.0, 0.0)), 3)
    np.testing.assert_allclose(weights(at_rest, 3), still, rtol=1e-4, atol=1e-6)
    state, step = trainer().start(key=KEY), eqx.filter_jit(trainer().step)
    for k in jax.random.split(KEY, 3):
        state = step(state, WORLDS, key=fork(k, 2)[1])
    own = np.concatenate([np.ravel(leaf) for leaf in state.leaves])
    np.testing.assert_allclose(weights(at_rest, 3), own, rtol=1e-3, atol=1e-5)


def test_each_lever_changes_what_it_is_called_after():
    ppo = coached(drift(0.0, 0.0, 0.0, 0.0)).at(jnp.log(jnp.array([2.0, 0.3, 0.25, 0.5])))
    assert float(ppo.rule.factor) == pytest.approx(2)
    assert [float(x) for x in (ppo.entropy, ppo.discount, ppo.trace)] == pytest.approx([0.3, 0.75, 0.5])
    beyond = coached(drift(0.0, 0.0, 0.0, 0.0)).at(jnp.array([0.0, 0.0, 1.0, 1.0]))
    assert float(beyond.discount) == float(beyond.trace) == 0.0


def test_the_step_size_scales_what_a_step_moves():
    """With plain gradient steps, one minibatch and one epoch, twice the factor is twice the way."""
    ppo = dataclasses.replace(trainer(), rule=sgd(0.1), epochs=1, minibatches=1)
    begin = np.concatenate([np.ravel(leaf) for leaf in pick(ppo.agent)])
    once = weights(coached(drift(0.0, 0.0, 0.0, 0.0), ppo), 1) - begin
    more = weights(coached(drift(float(np.log(1.5)), 0.0, 0.0, 0.0), ppo), 1) - begin
    np.testing.assert_allclose(more, 1.5 * once, rtol=1e-3, atol=1e-6)
    assert np.linalg.norm(once) > 1e-4


def test_changes_are_bounded_at_every_step_and_in_all():
    learner = coached(drift(9.0, -9.0, 0.1, 0.0), steps=30)
    step = eqx.filter_jit(learner.step)
    state = learner.start(key=KEY)
    moved = []
    for k in jax.random.split(KEY, 12):
        state = step(state, WORLDS, key=k)
        moved.append(np.asarray(state.logs - learner.logs))
    np.testing.assert_allclose(moved[0], [0.5, -0.5, 0.1, 0.0], atol=1e-6)
    np.testing.assert_allclose(moved[-1], [LIMIT, -LIMIT, 1.2, 0.0], atol=1e-5)


def test_the_coach_is_told_of_training_steps_and_the_manager_when_it_is_its_turn():
    learner = coached(Told(), every=2)
    state, update = learner.start(key=KEY), eqx.filter_jit(learner.update)
    seen, turns, returns = [], [], []
    for k in jax.random.split(KEY, 3):
        state, metrics = update(state, WORLDS, key=k)
        seen.append(np.asarray(state.memory[0]))
        turns.append(bool(state.memory[1]))
        returns.append(float(metrics["return"]))
    assert turns == [True, False, True]
    np.testing.assert_array_equal(seen[0], np.zeros(NOTED))  # before anything has happened
    assert seen[1][7] == pytest.approx(1 / 3)
    assert seen[2][7] == pytest.approx(2 / 3)
    assert seen[2][0] == pytest.approx((returns[1] - returns[0]) / returns[0], rel=1e-4, abs=1e-5)
    assert seen[1][0] == 0.0


def test_only_the_manager_waits_for_its_turn():
    coach = ManagerCoach(key=KEY)
    coach = eqx.tree_at(lambda each: each.reflex, coach, jnp.ones_like(coach.reflex))
    noted = jnp.full(NOTED, 0.1)
    memory, off = coach.advise(coach.start(), noted, jnp.array(False), key=KEY)
    np.testing.assert_array_equal(memory, coach.start())
    assert float(off[0]) != 0
    assert not np.any(off[1:])
    memory, on = coach.advise(coach.start(), noted, jnp.array(True), key=KEY)
    assert np.any(memory != coach.start())
    assert np.all(np.asarray(on) != 0)


def test_a_wanderer_draws_steps_of_its_size():
    drawn = jax.vmap(lambda k: Wanderer(jnp.array(0.3)).advise(None, None, None, key=k)[1])(jax.random.split(KEY, 2000))
    assert float(jnp.std(drawn)) == pytest.approx(0.3, rel=0.05)


def test_storey_2_learns_the_coach_and_nothing_else():
    # steps so large that the policy, and with it what is drawn, changes with their size
    learner = coached(ManagerCoach(key=KEY), dataclasses.replace(trainer(), rule=adam(1.0)), steps=2)
    tower = lift(learner, sgd(0.1), batch=4, gradient=Evolution(4, 1.0), learn=lambda coached: coached.coach)
    state = eqx.filter_jit(tower.step)(tower.start(key=KEY), BanditFamily(2), key=KEY)
    after = tower.result(state).learner
    for a, b in zip(pick(after.trainer), pick(learner.trainer), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(np.any(a != b) for a, b in zip(pick(after.coach), pick(learner.coach), strict=True))
    assert tower.height == 2


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"expected logs of shape \(4,\).*got \(3,\)"):
        Coached(trainer(), Told(), jnp.zeros(3))
    with pytest.raises(ValueError, match="expected every of at least 1, got 0"):
        coached(Told(), every=0)
