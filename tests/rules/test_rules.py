"""The rules against formulas, against Optax, and at the points where derivatives go wrong."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.toys import Bowl, curve, key, number

from metatower import (
    Descend,
    Positive,
    Task,
    Tasks,
    adam,
    anneal,
    clip,
    from_optax,
    lift,
    momentum,
    per_step,
    rates_for,
    sgd,
    value,
)
from metatower.core import names, pick
from metatower.gradients import Reptile
from metatower.rules import remembering, rescaled

pytestmark = pytest.mark.usefixtures("x64")
GRADIENTS = [[np.array([1.0, -2.0]), np.array(0.5)], [np.array([0.1, 3.0]), np.array(-4.0)]]


def moved(rule, gradients=GRADIENTS):
    """Where a rule takes two leaves of zeros and ones."""
    leaves = [jnp.zeros(2, float), jnp.ones((), float)]
    state = rule.start(leaves)
    for gradient in gradients:
        state, leaves = rule.step(state, leaves, [jnp.asarray(g) for g in gradient])
    return leaves


def expect(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (sgd(0.3), optax.sgd(0.3)),
        (momentum(0.3, 0.8), optax.sgd(0.3, momentum=0.8)),
        (adam(0.3), optax.adam(0.3)),
        (adam(0.3, 0.5, 0.9), optax.adam(0.3, 0.5, 0.9)),
        (clip(sgd(0.3), 0.7), optax.chain(optax.clip_by_global_norm(0.7), optax.sgd(0.3))),
        (clip(sgd(0.3), 100.0), optax.sgd(0.3)),
    ],
)
def test_agrees_with_optax(ours, theirs):
    expect(moved(ours), moved(from_optax(theirs)))


def test_a_rate_per_leaf_and_per_parameter():
    (g, h), *_ = GRADIENTS
    expect(moved(sgd([jnp.array(0.1), jnp.array(2.0)]), GRADIENTS[:1]), [-0.1 * g, 1 - 2 * h])
    expect(moved(sgd([jnp.array([0.1, 3.0]), jnp.array(2.0)]), GRADIENTS[:1]), [-jnp.array([0.1, 3.0]) * g, 1 - 2 * h])


def test_per_step_takes_its_own_rate_each_step_and_the_last_one_after():
    rates = [jnp.array([0.1, 0.2]), jnp.array([0.3, 0.4])]
    (g, h), (g2, h2) = GRADIENTS
    wanted = [-0.1 * g - 0.2 * g2 - 0.2 * g, 1 - 0.3 * h - 0.4 * h2 - 0.4 * h]
    expect(moved(per_step(sgd(rates)), [*GRADIENTS, GRADIENTS[0]]), wanted)


def test_per_step_refuses_scalars():
    for rule in (sgd(jnp.array(0.1)), sgd(0.1)):
        with pytest.raises(ValueError, match="leading axis of steps"):
            per_step(rule)


@pytest.mark.parametrize("hyper", ["rate", "b1", "b2", "eps"])
def test_adam_has_finite_derivatives_of_first_and_second_order_at_a_zero_gradient(hyper):
    numbers = {"rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 1e-8}

    def after(x, g):
        rule = adam(**{**numbers, hyper: x})
        return sum(jnp.sum(leaf) for leaf in moved(rule, [[jnp.zeros(2) * g, g], [jnp.zeros(2), g]]))

    x, zero = number(numbers[hyper]), number(0.0)
    for order in (jax.grad(after, (0, 1)), jax.jit(jax.hessian(after, (0, 1)))):
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(order(x, zero)))


def test_clip_has_a_finite_derivative_at_a_zero_gradient():
    slope = jax.grad(lambda g: jnp.sum(moved(clip(sgd(0.1), 1.0), [[g, g[0]]])[0]))(jnp.zeros(2))
    np.testing.assert_allclose(slope, -0.1)


def test_numbers_are_fixed_and_arrays_are_learned():
    assert names(adam(0.1)) == []
    assert names(adam(jnp.array(0.1), b2=jnp.array(0.9))) == ["rate", "b2"]
    assert names(momentum(Positive(0.1))) == ["rate.log"]
    assert names(clip(sgd(jnp.array(0.1)), jnp.array(1.0))) == ["rule.rate", "norm"]


def test_a_list_of_the_wrong_length_names_the_rule():
    for rule in (sgd, momentum, adam):
        with pytest.raises(ValueError, match=rf"{rule.__name__}: rate is a list of 1 values, but"):
            rule([jnp.array(0.1)]).start([jnp.zeros(2), jnp.ones(())])


def test_rates_for_follows_the_leaves():
    np.testing.assert_allclose(value(rates_for(curve(), 0.1).numbers), [0.1, 0.1], rtol=1e-6)
    assert [rate.shape for rate in pick(rates_for(curve(), 0.1, steps=5))] == [(5, 2)]
    assert [rate.shape for rate in pick(rates_for(curve(), 0.1, learn=lambda o: o.b))] == [(1,)]
    changed = rates_for(curve(), 0.1, overrides=((lambda o: o.b, 0.7),))
    np.testing.assert_allclose(value(changed.numbers), [0.1, 0.7], rtol=1e-6)
    assert pick(rates_for(curve(), 0.1, learned=False)) == []
    assert [rate.shape for rate in pick(rates_for(curve(), 0.1, per="parameter", steps=3))] == [(3,), (3,)]
    with pytest.raises(ValueError, match="expected per='leaf' or per='parameter', got 'layer'"):
        rates_for(curve(), 0.1, per="layer")


def test_rescaled_rules_do_not_see_the_units_of_a_leaf():
    def run(units, leaf=1.0):
        rule, leaves = rescaled(momentum(0.3)), [jnp.array([leaf, 2 * leaf]) / units, jnp.zeros(1)]
        state = rule.start(leaves)
        for _ in range(4):
            # of ½ θ · (1, 3) θ with θ = units · leaf; the second leaf has no gradient
            gradient = [units * jnp.array([1.0, 3.0]) * units * leaves[0], jnp.zeros(1)]
            state, leaves = rule.step(state, leaves, gradient)
        return units * leaves[0], leaves[1]

    (moved, still), (again, _) = run(1.0), run(100.0)
    np.testing.assert_allclose(moved, again, rtol=1e-4)
    assert np.array_equal(still, [0.0])
    rule, leaves = rescaled(sgd(0.5)), [jnp.zeros(2)]
    state, after = rule.step(rule.start(leaves), leaves, [jnp.array([3.0, 4.0])])
    rms = 12.5**0.5
    np.testing.assert_allclose(after[0], -0.5 * np.array([3.0, 4.0]) / rms**2, rtol=1e-6)
    # later gradients are measured by the first
    _, last = rule.step(state, after, [jnp.array([6.0, 8.0])])
    np.testing.assert_allclose(last[0] - after[0], 2 * after[0], rtol=1e-6)


def test_anneal_shrinks_the_steps_of_any_rule_along_half_a_cosine():
    rule = anneal(sgd(1.0), begin=2, end=6)
    leaves = [jnp.zeros(2)]
    state, moves = rule.start(leaves), []
    for _ in range(8):
        state, after = rule.step(state, leaves, [jnp.array([1.0, -2.0])])
        moves.append(np.asarray(leaves[0] - after[0]))
        leaves = after
    factors = [1, 1, 1, *(0.5 * (1 + np.cos(np.pi * np.array([0.25, 0.5, 0.75])))), 0, 0]
    np.testing.assert_allclose(np.stack(moves), np.outer(factors, [1.0, -2.0]), atol=1e-6)


def test_anneal_refuses_an_end_before_its_beginning():
    with pytest.raises(ValueError, match="0 <= begin < end"):
        anneal(sgd(1.0), begin=5, end=5)


class Same(Tasks):
    """The same task every time."""

    at: jax.Array

    def sample(self, key):
        return Task(self.at, self.at)


def test_what_a_run_ends_with_is_where_the_next_one_sets_out():
    bowl = Bowl(number(1.0))
    twice, once = (Descend(bowl, remembering(bowl, adam(0.05, b1=0.0)), steps=steps) for steps in (6, 3))
    trainer, here = lift(once, sgd(1.0), gradient=Reptile()), Same(number(2.0))
    state = trainer.start(key=key(0))
    for i in range(2):
        state = trainer.step(state, here, key=key(i))
    carried, whole = trainer.result(state).learner, twice.adapt(here.at, key=key(0))
    expect(pick(carried.rule.memory), pick(whole.rule))
    expect(pick(carried.objective), whole.leaves)
    assert carried.rule.memory.count == 6


def test_annealing_until_another_step_is_the_same_program():
    traced = []

    @eqx.filter_jit
    def moved(rule):
        traced.append(rule)
        leaves = [jnp.ones(2)]
        return rule.step(rule.start(leaves), leaves, leaves)[1][0]

    early, late = (moved(anneal(sgd(0.5), end=end, begin=begin)) for end, begin in ((2, 0), (300, 100)))
    np.testing.assert_allclose([early, late], 0.5)
    assert len(traced) == 1
