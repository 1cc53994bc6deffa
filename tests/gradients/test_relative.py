"""The gradient of the logarithm of a run's loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import curve, data, key, number

from metatower import Expected
from metatower.core import Unrolled, pick, put
from metatower.gradients import Clipped, Lifelong, MultiStep, Relative, Reptile
from metatower.learners import maml

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")


def slopes(gradient, batch):
    """Value and gradient of the expected loss of a MAML."""
    objective = Expected(maml(curve(), number(0.2), steps=2), batch)

    def loss(leaves, key):
        return put(objective, leaves).crossed_by(gradient).loss(data(1), key=key)

    leaves = pick(objective)
    (value, _), slope, _ = jax.jit(lambda: gradient.estimate(loss, leaves, None, key=key(1)))()
    return value, slope


def test_of_one_run_it_is_the_gradient_over_the_loss_and_the_value_stays_the_loss():
    value, plain = slopes(Unrolled(), 1)
    shown, relative = slopes(Relative(), 1)
    np.testing.assert_allclose(shown, value, rtol=1e-12)
    for ours, exact in zip(relative, plain, strict=True):
        np.testing.assert_allclose(ours, exact / (value + 1e-6), rtol=1e-9)


def test_of_two_runs_it_weighs_them_alike():
    value, plain = slopes(Unrolled(), 2)
    _, relative = slopes(Relative(), 2)
    ratios = [np.asarray(a / b) for a, b in zip(relative, plain, strict=True)]
    assert max(jnp.max(jnp.abs(ratio * value - 1)) for ratio in ratios) > 0.01, "not the plain one over the mean loss"


@pytest.mark.parametrize("of", [Clipped(), Relative(), MultiStep(jnp.ones(2)), Reptile(), Lifelong(jnp.ones(2))])
def test_scores_of_which_the_derivative_is_another_are_refused(of):
    with pytest.raises(TypeError, match=f"what {type(of).__name__} scores is not that"):
        Relative(of)
