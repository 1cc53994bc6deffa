"""Policy gradients of any order, against an MDP whose expectations are sums of eight terms."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower import Descend, adam, lift, sgd
from metatower.core import Task, Tasks
from metatower.core.gradient import Unrolled
from metatower.envs import Discrete, Environment, Step, World, Worlds
from metatower.gradients import Evolution, FirstOrder
from metatower.learners import PolicyReturn, ProMP, maml_rl
from metatower.nets import MLP, Categorical, Supervised, squared_error

HORIZON, DISCOUNT = 3, 0.9


class Switch(Environment):
    """Two states; action 1 changes the state. Pays `task[state, action]`."""

    horizon: int = eqx.field(static=True, default=HORIZON)

    @property
    def observation_shape(self):
        return (2,)

    @property
    def actions(self):
        return Discrete(2)

    def sample_task(self, key):
        return jax.random.normal(key, (2, 2))

    def reset(self, key, task):
        state = jnp.zeros((), jnp.int32)
        return state, jax.nn.one_hot(state, 2)

    def step(self, key, state, action, task):
        reward = task[state, action]
        state = jnp.where(action == 1, 1 - state, state).astype(jnp.int32)
        return state, Step(jax.nn.one_hot(state, 2), reward, jnp.asarray(False), jnp.asarray(False))


class Table(eqx.Module):
    """Logits by state."""

    logits: jax.Array

    def __call__(self, x):
        return Categorical(x @ self.logits)


REWARDS = [jnp.array([[1.0, 0.2], [-0.5, 2.0]]), jnp.array([[0.3, -1.0], [1.5, 0.1]])]
LOGITS = jnp.array([[0.3, -0.2], [0.1, 0.5]])


def exact_loss(logits, task):
    """Minus the expected discounted return, by all sequences of actions."""
    log = jax.nn.log_softmax(logits)
    total = 0.0
    for actions in itertools.product((0, 1), repeat=HORIZON):
        state, weight, gained = 0, 0.0, 0.0
        for t, action in enumerate(actions):
            weight += log[state, action]
            gained += DISCOUNT**t * task[state, action]
            state = 1 - state if action == 1 else state
        total -= jnp.exp(weight) * gained
    return total


def objective(**how):
    return PolicyReturn(Table(LOGITS), trajectories=4000, discount=DISCOUNT, **how)


def estimates(function, number=12):
    """Mean and standard error of independent estimates."""
    found = jax.lax.map(function, jax.random.split(jax.random.key(0), number))
    return np.asarray(found.mean(axis=0)), np.asarray(found.std(axis=0, ddof=1) / number**0.5)


def close(found, truth, errors=4.5):
    mean, error = found
    assert np.all(np.abs(mean - np.asarray(truth)) < errors * error + 1e-6), (mean, truth, error)


def loss_of(logits, key, **how):
    return eqx.tree_at(lambda o: o.net.logits, objective(**how), logits).loss(World(Switch(), REWARDS[0]), key=key)[0]


@pytest.mark.parametrize("baseline", ["none", "time", "linear"])
def test_value_gradient_and_hessian_are_those_of_the_expectation(baseline):
    def loss(logits, key):
        return loss_of(logits, key, baseline=baseline)

    close(estimates(lambda key: loss(LOGITS, key)), exact_loss(LOGITS, REWARDS[0]))
    gradient = jax.grad(exact_loss)(LOGITS, REWARDS[0])
    close(estimates(lambda key: jax.grad(loss)(LOGITS, key)), gradient)
    hessian = jax.hessian(exact_loss)(LOGITS, REWARDS[0])
    found = estimates(lambda key: jax.jacfwd(jax.grad(loss))(LOGITS, key))
    close(found, hessian)
    assert np.abs(hessian).max() > 10 * found[1].max()  # it is measured well enough to be wrong


def test_without_credit_second_derivatives_are_another_thing():
    found = estimates(lambda key: jax.jacfwd(jax.grad(lambda x: loss_of(x, key, credit=0.0, baseline="time")))(LOGITS))
    with pytest.raises(AssertionError):
        close(found, jax.hessian(exact_loss)(LOGITS, REWARDS[0]))


@pytest.mark.parametrize("first_order", [False, True])
def test_the_meta_gradient_is_that_of_the_adapted_expectation(first_order):
    rate, task = 0.5, Task(World(Switch(), REWARDS[0]), World(Switch(), REWARDS[1]))

    def exact(logits):
        inner = jax.grad(exact_loss)(logits, REWARDS[0])
        return exact_loss(logits - rate * (jax.lax.stop_gradient(inner) if first_order else inner), REWARDS[1])

    def meta(key):
        def score(logits):
            start = eqx.tree_at(lambda o: o.net.logits, objective(baseline="time"), logits)
            gradient = FirstOrder() if first_order else Unrolled()
            return gradient.score(Descend(start, sgd(rate)), task, key=key)[0]

        return jax.grad(score)(LOGITS)

    close(estimates(meta, 24), jax.grad(exact)(LOGITS))


def test_the_standard_gradient_is_the_gradient_over_a_standard_deviation():
    world = World(Switch(), REWARDS[0])

    def gradient(scale, **how):
        world_ = World(world.environment, scale * world.task)
        return jax.grad(
            lambda x: eqx.tree_at(lambda o: o.net.logits, objective(**how), x).loss(world_, key=jax.random.key(1))[0]
        )(LOGITS)

    one, ten = (gradient(scale, baseline="time", standard=True) for scale in (1.0, 10.0))
    np.testing.assert_allclose(one, ten, rtol=1e-3)
    raw = gradient(1.0, baseline="time")
    np.testing.assert_allclose(raw / one, np.full((2, 2), float(raw[0, 0] / one[0, 0])), rtol=1e-3)


@pytest.mark.parametrize(
    ("gradient", "rate"), [(Unrolled(), 0.02), (Evolution(pairs=16, sigma=0.2), 0.05)], ids=["MAML", "ES-MAML"]
)
def test_its_lift_learns_where_to_start(gradient, rate):
    learner = maml_rl(Switch(), key=jax.random.key(0), rate=0.5, hidden=(8,), trajectories=16, baseline="time")
    trainer = lift(learner, adam(rate), batch=8, judged=1000, gradient=gradient)
    step = eqx.filter_jit(lambda state, key: trainer.step(state, Worlds(Switch()), key=key))
    loss = eqx.filter_jit(lambda state: trainer.loss(state, Worlds(Switch()), key=jax.random.key(2))[0])
    state = trainer.start(key=jax.random.key(0))
    before = loss(state)
    for key in jax.random.split(jax.random.key(1), 60):
        state = step(state, key)
    assert loss(state) < before - 0.1  # on the same thousand worlds


@pytest.mark.parametrize("steps", [1, 2])
def test_the_gradient_of_the_first_proximal_step_is_that_of_the_lift_without_credit(steps):
    learner = Descend(objective(baseline="time", credit=0.0), sgd(0.5), steps)
    # the penalty is of a divergence that is 0, and at its least, before the first step
    trainer = ProMP(learner, sgd(1.0), batch=1, epochs=1, penalty=3.0)
    worlds = Pair()

    def proximal(key):
        before = trainer.start(key=key)
        return (before.leaves[0] - trainer.step(before, worlds, key=key).leaves[0]) * HORIZON  # sgd at rate 1

    def lifted(key):
        def score(logits):
            start = eqx.tree_at(lambda learner: learner.objective.net.logits, learner, logits)
            return Unrolled().score(start, worlds.sample(key), key=key)[0]

        return jax.grad(score)(LOGITS)

    (one, error), (other, error_of_other) = estimates(proximal, 24), estimates(lifted, 24)
    together = np.sqrt(error**2 + error_of_other**2)
    assert np.all(np.abs(one - other) < 4.5 * together)
    assert np.abs(one).max() > 10 * together.max()


class Pair(Tasks):
    """One world to adapt to, another to be judged in."""

    def sample(self, key):
        del key
        return Task(World(Switch(), REWARDS[0]), World(Switch(), REWARDS[1]))


def test_proximal_steps_learn_where_to_start():
    learner = maml_rl(Switch(), key=jax.random.key(0), rate=0.5, hidden=(8,), trajectories=16, baseline="time")
    trainer = ProMP(learner, adam(0.02), batch=8, judged=1000)
    step = eqx.filter_jit(lambda state, key: trainer.update(state, Worlds(Switch()), key=key))
    loss = eqx.filter_jit(lambda state: trainer.loss(state, Worlds(Switch()), key=jax.random.key(2))[0])
    state = trainer.start(key=jax.random.key(0))
    before = loss(state)
    for key in jax.random.split(jax.random.key(1), 20):
        state, metrics = step(state, key)
    assert loss(state) < before - 0.1  # a third of the steps that the lift is given above
    assert 0 < metrics["kl"] < 0.1
    assert state.count == 20


def test_only_what_adapts_by_policy_gradients_is_trained_so():
    with pytest.raises(TypeError, match="adapts by policy gradients, as `maml_rl"):
        ProMP(Descend(Supervised(MLP((1, 1), key=jax.random.key(0)), squared_error), sgd(0.1)), sgd(0.1))
    with pytest.raises(ValueError, match="expected epochs of at least 1, got 0"):
        ProMP(maml_rl(Switch(), key=jax.random.key(0)), sgd(0.1), epochs=0)


def test_a_baseline_of_others_needs_others():
    with pytest.raises(ValueError, match="trajectories of at least 2, got 1"):
        PolicyReturn(Table(LOGITS), trajectories=1, baseline="time")
