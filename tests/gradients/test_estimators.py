"""Estimators against formulas written down by hand, and against the exact gradient within their standard error.

By hand: bowls ½ a w² to learn in and ½ b w² to be judged in, two steps of rate r from w₀, so w_t = (1 − r a)^t w₀.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.contract import ESTIMATORS, EXACT
from tests.toys import Bowl, Bowls, Slopes, curve, key, number

from metatower import Descend, Expected, lift, sgd
from metatower.core import Unrolled, pick, put
from metatower.gradients import Evolution, FirstOrder, Reptile, Truncated

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")
A, B, W, R = 0.7, 1.3, 0.9, 0.4
W1, W2 = (1 - R * A) * W, (1 - R * A) ** 2 * W


def gradient_of(gradient, steps=2):
    """The gradient with respect to the initial weight and the rate, on one bowl."""
    objective = Expected(Descend(Bowl(number(W)), sgd(number(R)), steps=steps))
    tasks = Bowls(number(A), number(B))

    def loss(leaves, key):
        return put(objective, leaves).crossed_by(gradient).loss(tasks, key=key)

    leaves = pick(objective)
    return gradient.estimate(loss, leaves, gradient.start(leaves), key=key(0))


BY_HAND = {
    "unrolled": (Unrolled(), B * W2 * (1 - R * A) ** 2, -2 * B * W2 * (1 - R * A) * A * W),
    "first order": (FirstOrder(), B * W2, -B * W2 * (A * W + A * W1)),
    "truncated": (Truncated(last=1), 0.0, -B * W2 * A * W1),
    "reptile": (Reptile(), W - W2, 0.0),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    gradient, weight, rate = BY_HAND[name]
    (loss, _), found, _ = gradient_of(gradient)
    np.testing.assert_allclose(loss, 0.5 * B * W2**2, rtol=1e-12)
    np.testing.assert_allclose(found, [weight, rate], rtol=1e-12)


@pytest.mark.parametrize("name", {**EXACT, **ESTIMATORS})
def test_the_value_is_everywhere_the_same(name):
    (loss, _), _, _ = gradient_of({**EXACT, **ESTIMATORS}[name]())
    np.testing.assert_allclose(loss, 0.5 * B * W2**2, rtol=1e-12)


def test_evolution_agrees_with_the_exact_gradient_within_its_standard_error():
    objective = Expected(Descend(curve(), sgd(number(0.3)), steps=2), batch=2)
    leaves, tasks = pick(objective), Slopes(number(1.0))

    def loss(leaves, _):  # one key for all pairs: the noise of the estimator alone
        return put(objective, leaves).loss(tasks, key=key(5))

    one = Evolution(pairs=1, sigma=1e-3)
    keys = jax.random.split(jax.random.key(0), 4000)
    found = jax.jit(jax.vmap(lambda k: jnp.stack(one.estimate(loss, leaves, None, key=k)[1])))(keys)
    exact = jnp.stack(jax.grad(lambda leaves: loss(leaves, None)[0])(leaves))
    error = found.std(axis=0) / len(keys) ** 0.5
    assert (error < 0.1 * jnp.abs(exact).max()).all(), "too noisy to tell anything"
    assert (jnp.abs(found.mean(axis=0) - exact) < 3.5 * error).all()


def test_evolution_averages_its_pairs():
    objective = Expected(Descend(curve(), sgd(number(0.3))), batch=1)

    def loss(leaves, key):
        return put(objective, leaves).loss(Slopes(number(1.0)), key=key)

    def spread(pairs):
        def one(k):
            return Evolution(pairs).estimate(lambda leaves, _: loss(leaves, key(0)), pick(objective), None, key=k)[1]

        keys = jax.random.split(jax.random.key(1), 200)
        return jnp.stack(jax.jit(jax.vmap(one))(keys)).std(axis=1)

    np.testing.assert_allclose(spread(16) / spread(1), 0.25, atol=0.08)


def test_evolution_needs_no_derivative():
    class Stairs(Bowl):
        def loss(self, data, *, key):
            return jnp.round(8 * data * self.w**2) / 8, {}

    learner = Descend(Stairs(number(2.0)), sgd(0.1), steps=400, gradient=Evolution(pairs=8, sigma=0.3))
    state = jax.jit(lambda: learner.adapt(number(1.0), key=key(0)))()
    assert learner.loss(state, number(1.0), key=key(0))[0] < 0.3 < learner.objective.loss(number(1.0), key=key(0))[0]


def test_first_order_at_storey_2_stops_the_derivative_of_the_gradient_below():
    """Storey 1 moves w₀ by ρ times its gradient g; first-order takes dg/dw₀ as zero, so dL/dw₀ is L'(w₀ − ρ g)."""
    rho = 0.2
    maml = Descend(Bowl(number(W)), sgd(R), steps=2)
    trainer = lift(maml, sgd(rho))
    family = Bowls(Bowls(number(A), number(B)), Bowls(number(A), number(B)))
    objective = Expected(trainer)

    def loss(leaves, key):
        return put(objective, leaves).crossed_by(FirstOrder()).loss(family, key=key)

    _, (found,), _ = FirstOrder().estimate(loss, pick(objective), None, key=key(0))
    meta = lambda w: B * (1 - R * A) ** 4 * w  # noqa: E731  the exact meta-gradient at w
    np.testing.assert_allclose(found, meta(W - rho * meta(W)), rtol=1e-12)


@pytest.mark.parametrize("bad", [lambda: Evolution(pairs=0), lambda: Evolution(sigma=0.0), lambda: Truncated(last=0)])
def test_what_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        bad()
