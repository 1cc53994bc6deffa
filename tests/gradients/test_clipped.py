"""The gradient of every run, clipped before the mean is taken."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from tests.toys import curve, data, key, number

from metatower import Expected, Objective, Task, Tasks, lift, sgd
from metatower.core import Unrolled, pick, put
from metatower.core.keys import fork
from metatower.gradients import PES, Clipped, Evolution, ForwardMode, MixedMode, Relative, ScoreFunction
from metatower.learners import maml
from metatower.nets import Examples
from metatower.tasks.chance import uniforms

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")


KEY = jax.random.key(1, impl="threefry2x32")
"""Tasks by this key are the same whether several are drawn at once or one after the other."""


class Waves(Tasks):
    """Fit sin(a x) at six points."""

    def sample(self, key):
        slope, x = uniforms(key, (), (6,))
        x = 2 * x.astype(float) - 1
        y = jnp.sin((1 + 2 * slope) * x)
        return Task(Examples(x[:3], y[:3]), Examples(x[3:], y[3:]))


def slopes(gradient, batch, chunk=None, of=None):
    """Value and gradient of the expected loss of a MAML, flattened."""
    objective = of or Expected(maml(curve(), number(0.2), steps=2), batch, chunk)
    leaves = pick(objective)

    def loss(leaves, key):
        return put(objective, leaves).crossed_by(gradient).loss(Waves(), key=key)

    (value, _), slope, _ = jax.jit(lambda: gradient.estimate(loss, leaves, None, key=KEY))()
    return float(value), np.concatenate([np.ravel(x) for x in slope])


def test_with_room_enough_it_is_the_exact_gradient():
    value, plain = slopes(Unrolled(), 3)
    same, clipped = slopes(Clipped(1e6), 3)
    assert same == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(clipped, plain, rtol=1e-10)


def test_one_run_keeps_its_direction_and_gets_that_length():
    value, plain = slopes(Unrolled(), 1)
    shown, clipped = slopes(Clipped(0.01), 1)
    assert np.linalg.norm(plain) > 0.02
    assert shown == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(clipped, 0.01 * plain / np.linalg.norm(plain), rtol=1e-9)


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_of_several_runs_each_is_clipped_by_itself(chunk):
    objective = Expected(maml(curve(), number(0.2), steps=2), 3)

    def of_run(number):
        def loss(leaves):
            runs = list(put(objective, leaves).runs(Waves(), key=KEY))
            return runs[number].score()[0]

        return np.concatenate([np.ravel(x) for x in jax.grad(loss)(pick(objective))])

    each = [of_run(i) for i in range(3)]
    lengths = [np.linalg.norm(one) for one in each]
    limit = float(np.median(lengths))
    assert min(lengths) < 0.99 * limit < 1.01 * limit < max(lengths)
    expected = np.mean([one * min(1, limit / length) for one, length in zip(each, lengths, strict=True)], axis=0)
    np.testing.assert_allclose(slopes(Clipped(limit), 3, chunk)[1], expected, rtol=1e-9)
    assert not np.allclose(expected, np.mean(each, axis=0), rtol=1e-3)


def test_it_clips_what_another_estimator_gives():
    _, relative = slopes(Relative(), 1)
    _, clipped = slopes(Clipped(0.01, Relative()), 1)
    np.testing.assert_allclose(clipped, 0.01 * relative / np.linalg.norm(relative), rtol=1e-9)


def test_a_run_that_does_not_depend_on_the_leaves_has_gradient_nought():
    objective = eqx.tree_at(
        lambda o: o.learner.objective, Expected(maml(curve(), number(0.0), steps=1), 2), _Flat(jnp.ones(2))
    )
    assert not np.any(slopes(Clipped(1.0), 2, of=objective)[1])


def test_storey_2_learns_through_it():
    tower = lift(lift(maml(curve(), number(0.2), steps=1), sgd(number(0.1)), batch=2, steps=2), sgd(0.1), batch=2)
    clipped = dataclasses.replace(tower, gradient=Clipped(1e-3))
    moved = []
    for each in (tower, clipped):
        state = each.start(key=key(0))
        after = each.step(state, data(2), key=fork(key(1), 2)[0])
        pairs = zip(state.leaves, after.leaves, strict=True)
        moved.append(np.concatenate([np.ravel(b - a) for a, b in pairs]))
    assert 0 < np.linalg.norm(moved[1]) <= 0.1 * 1e-3 * (1 + 1e-9) < np.linalg.norm(moved[0])


@pytest.mark.parametrize("estimator", [Evolution(2, 0.1), ForwardMode(), PES(2, 0.1), MixedMode()])
@pytest.mark.parametrize("wrapper", [partial(Clipped, 1.0), Relative])
def test_estimators_that_would_be_passed_over_are_refused(estimator, wrapper):
    with pytest.raises(TypeError, match=f"{type(estimator).__name__} estimates the gradient of many runs"):
        wrapper(estimator)


def test_what_a_score_costs_is_told():
    for wrapped in (Clipped(1.0, ScoreFunction(8)), Relative(ScoreFunction(8))):
        assert wrapped.evaluations(3) == ScoreFunction(8).evaluations(3)


def test_a_norm_that_is_none_is_refused():
    for norm in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="Clipped: expected norm above 0"):
            Clipped(norm)


class _Flat(Objective):
    """Nought, whatever it has learned."""

    leaf: Array

    def loss(self, data, *, key):
        return 0.0 * jnp.sum(self.leaf) ** 2, {}
