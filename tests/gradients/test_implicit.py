import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import Bowl, Bowls, curve, data, key, number

from metatower import Objective, Positive, Task, Tasks, lift, sgd
from metatower.core import Expected, Unrolled, pick, put
from metatower.gradients import Implicit, MultiStep, multi_step_weights
from metatower.learners import ImplicitMAML, maml

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")


class Valley(Objective):
    """½ (w − b)ᵀ A (w − b) + 0.1 Σ w⁴, strongly convex."""

    w: jax.Array

    def loss(self, data, *, key):
        a, b = data
        shift = self.w - b
        return 0.5 * shift @ a @ shift + 0.1 * jnp.sum(self.w**4), {}


class Valleys(Tasks):
    def sample(self, key):
        k = jax.random.split(key, 3)
        root = jax.random.normal(k[0], (4, 4))
        a = root @ root.T + jnp.eye(4)
        return Task((a, jax.random.normal(k[1], (4,))), (a, jax.random.normal(k[2], (4,))))


def slope(learner, gradient, tasks):
    objective = Expected(learner, 2)

    def loss(leaves, key):
        return put(objective, leaves).crossed_by(gradient).loss(tasks, key=key)

    return jax.jit(lambda: gradient.estimate(loss, pick(objective), None, key=key(3))[:2])()


def test_it_is_the_gradient_of_the_converged_run():
    """Of the initial weights and of the strength; against the exact gradient of 600 unrolled steps."""
    learner = ImplicitMAML(Valley(jnp.linspace(-1, 1, 4)), 0.05, Positive(1.5), steps=600)
    (value, _), implicit = slope(learner, Implicit(iterations=8), Valleys())
    (expected, _), exact = slope(learner, Unrolled(), Valleys())
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert len(implicit) == len(exact) == 2
    for got, want in zip(implicit, exact, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    rough = slope(learner, Implicit(iterations=1), Valleys())[1][0]
    assert not np.allclose(rough, exact[0], rtol=1e-2), "one iteration should not be enough"


def test_by_hand_in_a_bowl():
    a, b, w, strength = 0.7, 1.3, 0.9, 2.0
    trainer = lift(ImplicitMAML(Bowl(number(w)), 0.3, strength, steps=100), sgd(0.1), gradient=Implicit())
    moved = trainer.step(trainer.start(key=key(0)), Bowls(number(a), number(b)), key=key(1)).leaves[0] - w
    share = strength / (a + strength)  # the minimum is at share · θ
    np.testing.assert_allclose(moved, -0.1 * b * share**2 * w, rtol=1e-9)


def test_a_learner_that_solves_nothing_is_refused():
    with pytest.raises(TypeError, match="does not say which equation"):
        slope(maml(curve(), 0.1), Implicit(), data(1))


def test_the_multi_step_gradient_by_hand():
    a, b, w, r, weights = 0.7, 1.3, 0.9, 0.4, (0.2, 0.3, 0.5)
    learner = maml(Bowl(number(w)), r, steps=3)
    tasks = Bowls(number(a), number(b))
    (value, _), (got,) = slope(learner, MultiStep(jnp.array(weights)), tasks)
    shrunk = (1 - r * a) ** np.arange(1, 4)
    np.testing.assert_allclose(got, np.sum(np.array(weights) * b * shrunk**2 * w), rtol=1e-6)
    np.testing.assert_allclose(value, 0.5 * b * (shrunk[-1] * w) ** 2, rtol=1e-12)
    with pytest.raises(ValueError, match="2 weights for a learner of 3 steps"):
        slope(learner, MultiStep(jnp.ones(2)), tasks)


def test_the_weights_go_to_the_last_step():
    for progress in (0.0, 0.4, 1.0, 2.0):
        np.testing.assert_allclose(multi_step_weights(5, progress).sum(), 1)
    np.testing.assert_allclose(multi_step_weights(5, 0.5), [0.1, 0.1, 0.1, 0.1, 0.6])
    np.testing.assert_allclose(multi_step_weights(5, 1.0)[:4], 0.006)
