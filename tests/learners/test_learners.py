"""The published algorithms against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import Bowl, Bowls, curve, data, key, number

from metatower import adam, lift, sgd
from metatower.core import names, pick
from metatower.learners import LEARNERS, anil, fomaml, maml, meta_sgd, reptile
from metatower.nets import MLP, Supervised, squared_error
from metatower.tasks.functions import Sinusoids

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")
A, B, W, R, BETA = 0.7, 1.3, 0.9, 0.4, 0.1
TASKS = (A, B)


def moved_by(trainer):
    """How far one step of a trainer moves the initial weight of a bowl."""
    state = trainer.step(trainer.start(key=key(0)), Bowls(number(A), number(B)), key=key(1))
    return float(state.leaves[0]) - W


def test_mamls_meta_gradient():
    trainer = lift(maml(Bowl(number(W)), R), sgd(BETA))
    np.testing.assert_allclose(moved_by(trainer), -BETA * B * (1 - R * A) ** 2 * W, rtol=1e-12)


def test_fomamls_meta_gradient():
    trainer = fomaml(Bowl(number(W)), sgd(BETA), R)
    np.testing.assert_allclose(moved_by(trainer), -BETA * B * (1 - R * A) * W, rtol=1e-12)


def test_reptile_moves_towards_the_end_of_the_run():
    trainer = reptile(Bowl(number(W)), sgd(BETA), R, steps=3)
    np.testing.assert_allclose(moved_by(trainer), BETA * ((1 - R * A) ** 3 * W - W), rtol=1e-12)


def test_meta_sgd_has_a_rate_for_every_number_and_learns_it():
    learner = meta_sgd(Supervised(MLP((2, 3, 1), key=key(0)), squared_error), 0.05)
    weights, rates = pick(learner.objective), pick(learner.rule)
    assert [rate.shape for rate in rates] == [weight.shape for weight in weights]
    np.testing.assert_allclose(np.exp(rates[0]), 0.05)
    trainer = lift(meta_sgd(Bowl(number(W)), R), sgd(BETA))
    after = trainer.step(trainer.start(key=key(0)), Bowls(number(A), number(B)), key=key(1)).leaves
    slope = -B * (1 - R * A) * W * A * W * R  # dL/dr · dr/d(log r)
    np.testing.assert_allclose(after[1], np.log(R) - BETA * slope, rtol=1e-12)


def test_anil_moves_the_head_only_and_learns_the_body_above():
    learner = anil(curve(), head=lambda o: o.b, rate=0.2, steps=2)
    result = learner.result(learner.adapt(data(0), key=key(0)))
    assert result.w == curve().w
    assert result.b != curve().b
    trainer = lift(learner, sgd(0.1), batch=2)
    assert names(trainer.objective) == ["learner.objective.w", "learner.objective.b"]
    before = trainer.start(key=key(0))
    after = trainer.step(before, data(1), key=key(1))
    assert all(bool(jnp.any(a != b)) for a, b in zip(before.leaves, after.leaves, strict=True))


@pytest.mark.parametrize("name", LEARNERS)
def test_each_says_what_it_is_and_where_it_is_from(name):
    text = LEARNERS[name].__doc__
    assert "https://arxiv.org/abs/" in text
    assert "Differs from the paper in" in text
    assert LEARNERS[name].__module__ == f"metatower.learners.{name}"


def test_maml_learns_sinusoids_a_little():
    objective = Supervised(MLP((1, 20, 20, 1), key=jax.random.key(0)), squared_error)
    trainer = lift(maml(objective, 0.02), adam(5e-3), batch=8, steps=300, judged=200)

    @jax.jit
    def losses():
        start = trainer.start(key=jax.random.key(1))
        end = trainer.adapt(Sinusoids(), key=jax.random.key(1))
        return [trainer.loss(state, Sinusoids(), key=jax.random.key(2))[0] for state in (start, end)]

    before, after = losses()
    assert after < 0.85 * before
