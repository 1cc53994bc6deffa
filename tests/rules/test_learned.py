"""Learned rules against rules that are known, and what no network can make them do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import Bowl, Bowls, number

from metatower import Descend, adam, lift, sgd
from metatower.core import names, pick
from metatower.rules import learned_lstm, learned_mlp

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")
LEAVES = [np.array([[1.0, 2.0, -1.0], [0.5, -2.0, 3.0]]), np.array([0.3, -0.1]), np.array(2.0)]
GRADIENT = [np.array([[0.1, -0.2, 0.3], [1.0, -2.0, 0.7]]), np.array([1e-3, 2e-3]), np.array(-4.0)]
MAKE = {"mlp": learned_mlp, "lstm": learned_lstm}


def moved(rule, gradients=(GRADIENT,)):
    leaves = [jnp.asarray(leaf) for leaf in LEAVES]
    state = rule.start(leaves)
    for gradient in gradients:
        state, leaves = rule.step(state, leaves, [jnp.asarray(g) for g in gradient])
    return leaves


def expect(found, wanted, **how):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 1e-6, **how})


def talking(kind, **how):
    """A rule whose network says something."""
    rule = MAKE[kind](0.1, key=jax.random.key(0), units=4, **how)
    return eqx.tree_at(lambda rule: rule.out, rule, jnp.array([1.0, -2.0, 3.0, 0.5]))


@pytest.mark.parametrize("kind", MAKE)
def test_with_weights_of_zero_nothing_moves(kind):
    rule = MAKE[kind](0.1, key=jax.random.key(0))
    silent = jax.tree.map(lambda x: jnp.zeros_like(x) if eqx.is_inexact_array(x) else x, rule)
    expect(moved(silent, [GRADIENT, GRADIENT]), LEAVES)


def test_fresh_and_with_power_one_it_is_gradient_descent():
    rule = learned_mlp(0.1, key=jax.random.key(0), power=1.0, like="gradient")
    expect(moved(rule, [GRADIENT, LEAVES]), moved(sgd(0.1), [GRADIENT, LEAVES]))


@pytest.mark.parametrize("kind", MAKE)
def test_with_power_zero_every_leaf_moves_by_its_rate_whatever_the_network_says(kind):
    rates = [jnp.array(0.1), jnp.array(2.0), jnp.array(0.5)]
    rule = eqx.tree_at(lambda rule: rule.rate, talking(kind), rates)
    lengths = [np.sqrt(np.mean((new - old) ** 2)) for new, old in zip(moved(rule), LEAVES, strict=True)]
    expect(lengths, rates, rtol=1e-4)


@pytest.mark.parametrize("power", [0.0, 1.0, 0.5])
def test_the_power_says_how_the_scale_of_the_gradient_counts(power):
    rule = talking("mlp", power=power, averages=(0.9,))
    once, scaled = (moved(rule, [[factor * g for g in GRADIENT]]) for factor in (1.0, 100.0))
    for new, other, old in zip(once, scaled, LEAVES, strict=True):
        np.testing.assert_allclose(other - old, 100.0**power * (new - old), rtol=1e-3)


@pytest.mark.parametrize("kind", MAKE)
def test_steps_shorten_as_a_power_of_time(kind):
    rule = talking(kind, decay=2.0)
    for steps in (1, 3):
        before, after = moved(rule, [GRADIENT] * (steps - 1)), moved(rule, [GRADIENT] * steps)
        length = float(np.sqrt(np.mean((after[0] - before[0]) ** 2)))
        np.testing.assert_allclose(length, 0.1 / steps**2, rtol=1e-4)


def test_momentum_is_the_first_average():
    rule = learned_mlp(0.1, key=jax.random.key(0), averages=(0.9,))
    second = [-2 * g for g in GRADIENT]  # 0.9 · 0.1 g - 0.1 · 2 g points against the first
    there, back = moved(rule, [GRADIENT]), moved(rule, [GRADIENT, second])
    wanted = [old + 0.1 * g / np.sqrt(np.mean(g**2)) for old, g in zip(there, GRADIENT, strict=True)]
    expect(back, wanted, rtol=2e-3)


def test_one_step_of_an_lstm_by_hand():
    """One unit, one layer: c = σ(i) tanh(z), h = σ(o) tanh(c), gates linear in (log|g| / 10, sign g)."""
    rule = learned_lstm(1.0, key=jax.random.key(0), units=1, layers=1, power=1.0)
    rule = eqx.tree_at(
        lambda rule: (rule.weights, rule.biases, rule.out),
        rule,
        ([jnp.array([[0.5, 0.0, 1.0, 2.0], [0.1, 0.0, 0.3, -1.0], [9.0] * 4])], [jnp.array([0.2] * 4)], jnp.ones(1)),
    )
    g = np.array([0.5, -2.0])

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    log, sign = np.log(np.abs(g)) / 10, np.sign(g)
    c = sigmoid(0.5 * log + 0.1 * sign + 0.2) * np.tanh(2 * log - sign + 0.2)
    u = sigmoid(log + 0.3 * sign + 0.2) * np.tanh(c)
    _, (leaf,) = rule.step(rule.start([jnp.zeros(2)]), [jnp.zeros(2)], [jnp.asarray(g)])
    np.testing.assert_allclose(leaf, -u / np.sqrt(np.mean(u**2)) * np.sqrt(np.mean(g**2)), rtol=1e-6)


@pytest.mark.parametrize("kind", MAKE)
def test_derivatives_are_finite_at_a_gradient_of_zero(kind):
    rule = talking(kind, power=number(1.0))

    def after(rule, g):
        leaves = [jnp.ones(3), jnp.ones(())]
        state, leaves = rule.step(rule.start(leaves), leaves, [g, g[0]])
        return sum(jnp.sum(leaf) for leaf in rule.step(state, leaves, [g, g[0]])[1])

    gradient = eqx.filter_grad(lambda both: after(*both))
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradient((rule, jnp.zeros(3)))))


def test_the_storey_above_learns_rate_power_decay_and_network():
    rule = learned_mlp(number(0.1), key=jax.random.key(0), power=number(0.0), decay=number(0.0))
    assert names(rule) == ["rate", "power", "decay", "skip", "weight", "bias", "out"]
    assert names(learned_mlp(0.1, key=jax.random.key(0))) == ["skip", "weight", "bias", "out"]
    trainer = lift(Descend(Bowl(number(0.9)), rule, steps=2), adam(0.01))
    after = trainer.step(trainer.start(key=jax.random.key(0)), Bowls(number(0.7), number(1.3)), key=jax.random.key(1))
    before = pick(trainer.objective)
    assert sum(bool(jnp.any(a != b)) for a, b in zip(before, after.leaves, strict=True)) >= 4


def test_misuse_is_answered():
    with pytest.raises(ValueError, match="power and decay as single numbers"):
        learned_mlp(0.1, key=jax.random.key(0), power=jnp.zeros(3))
    with pytest.raises(ValueError, match="like='gradient' or like='momentum', got 'adam'"):
        learned_mlp(0.1, key=jax.random.key(0), like="adam")
    with pytest.raises(ValueError, match="rate is a list of 1 values, but"):
        learned_mlp([jnp.array(0.1)], key=jax.random.key(0)).start([jnp.zeros(2), jnp.ones(())])
