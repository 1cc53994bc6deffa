"""Towers of rules that move each other's hyper-parameters online, by hand and in cost."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from tests.toys import Bowl, key, number

from metatower import Descend, Positive, adam, momentum, sgd
from metatower.rules import online
from metatower.rules.online import Online

A, B, K, C, W = 0.2, 0.3, 0.4, 0.7, 0.9


def walk(rule, steps, curvature=C):
    """Weights and rule states of a run in a bowl, whose gradient is curvature · w."""
    leaves = [number(W)]
    state, weights, states = rule.start(leaves), [W], []
    for _ in range(steps):
        state, leaves = rule.step(state, leaves, [curvature * leaves[0]])
        weights.append(float(leaves[0]))
        states.append(state)
    return weights, states


@pytest.mark.usefixtures("x64")
def test_one_level_by_hand():
    weights, states = walk(online(sgd(number(A)), sgd(number(B))), 3)
    w, rate, before, expected = W, A, 0.0, [W]
    for _ in range(3):
        g = C * w
        rate, w, before = rate + B * before * g, w - (rate + B * before * g) * g, g
        expected.append(w)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    np.testing.assert_allclose(states[-1].hyper[0], rate, rtol=1e-12)
    assert rate > A, "a bowl that is descended too slowly asks for longer steps"


@pytest.mark.usefixtures("x64")
def test_two_levels_by_hand():
    weights, states = walk(online(sgd(number(A)), sgd(number(B)), sgd(number(K))), 4)
    w, rate, second, g0, h0, expected = W, A, B, 0.0, 0.0, [W]
    for _ in range(4):
        g = C * w
        h = -g * g0
        second = second + K * h * h0
        rate = rate - second * h
        w, g0, h0 = w - rate * g, g, h
        expected.append(w)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    np.testing.assert_allclose(states[-1].above.hyper[0], second, rtol=1e-12)
    assert states[-1].above.hyper[0] != B


@pytest.mark.usefixtures("x64")
def test_the_blame_is_the_derivative_of_the_last_step_of_any_rule():
    """Against finite differences of what a step with other hyper-parameters would have done."""
    rule = momentum(Positive(0.1), number(0.8))
    tower = online(rule, sgd(0.0))
    leaves, gradients = [jnp.arange(3.0)], [[jnp.array([1.0, -2.0, 0.5])], [jnp.array([0.3, 0.1, -1.0])]]
    state, moved = tower.start(leaves), leaves
    for g in gradients:
        before = state, moved
        state, moved = tower.step(state, moved, g)
    now = [jnp.array([0.2, 0.7, -0.4])]
    found = tower._blame(state, now)

    def loss(rate, decay):  # linear, with the gradient that came
        _, after = momentum(Positive(rate), decay).step(before[0].rule, before[1], gradients[-1])
        return jnp.vdot(after[0], now[0])

    slope = jax.grad(loss, (0, 1))(0.1, 0.8)
    np.testing.assert_allclose(found[0], 0.1 * slope[0], rtol=1e-9)  # of the logarithm
    np.testing.assert_allclose(found[1], slope[1], rtol=1e-9)


def tall(height, rate=1e-4, limit=0.1):
    return online(sgd(Positive(rate)), *[adam(Positive(0.1), b1=0.0, b2=0.9) for _ in range(height)], limit=limit)


def equations(jaxpr):
    return sum(1 + sum(equations(j) for j in jaxprs_in_params(e.params)) for e in jaxpr.eqns)


def test_cost_is_linear_in_the_height():
    def size(height):
        rule, leaves = tall(height), [jnp.ones(4)]
        return equations(jax.make_jaxpr(rule.step)(rule.start(leaves), leaves, leaves).jaxpr)

    sizes = [size(h) for h in (5, 10, 15, 20)]
    assert set(np.diff(sizes)) == {sizes[1] - sizes[0]}


def test_thirty_levels_run_and_rescue_a_rate_that_is_far_too_small():
    def final(rule):
        learner = Descend(Bowl(number(W)), rule, steps=100)
        return jax.jit(lambda: learner.loss(learner.adapt(number(1.0), key=key(0)), number(1.0), key=key(0))[0])()

    alone, low, high = final(sgd(1e-4)), final(tall(1)), final(tall(30))
    assert alone > 0.9 * 0.5 * W**2
    assert low < 0.1 * alone
    assert high < 0.1 * alone


def test_the_clamp_holds_every_move():
    rule = tall(2, rate=0.01, limit=0.05)
    _, states = walk(rule, 30, curvature=50.0)
    for before, after in itertools.pairwise(states):
        for old, new in zip((before, before.above), (after, after.above), strict=True):
            assert abs(float(new.hyper[0] - old.hyper[0])) <= 0.05 + 1e-6
    moved = [abs(float(b.hyper[0] - a.hyper[0])) for a, b in itertools.pairwise(states)]
    assert max(moved) > 0.049, "never clamped, so nothing was tested"


def test_the_hyper_parameters_can_be_asked_for():
    rule = tall(2)
    found = rule.hyper(rule.start([jnp.ones(2)]))
    assert list(found) == ["rate.log", "above.rate.log"]
    np.testing.assert_allclose(jnp.exp(found["rate.log"]), 1e-4, rtol=1e-5)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="no hyper-parameter that could be moved"):
        online(sgd(0.1), sgd(0.1))
    with pytest.raises(ValueError, match="at least one rule"):
        online()
    with pytest.raises(ValueError, match="limit above 0"):
        online(sgd(Positive(0.1)), sgd(0.1), limit=0.0)
    assert not isinstance(online(sgd(0.1)), Online)
