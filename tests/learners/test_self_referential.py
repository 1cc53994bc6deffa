"""The self-referential weight matrix against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import key

from metatower import adam, lift
from metatower.evaluation import evaluate
from metatower.learners import self_referential
from metatower.nets import Examples
from metatower.tasks.functions import Sinusoids
from metatower.training import train

pytestmark = pytest.mark.usefixtures("quick_compile")


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def test_the_matrix_changes_itself_as_equations_5_to_8_say():
    learner = self_referential(1, 1, key=key(0), units=2)
    w, x = np.asarray(learner.weight), np.array([0.5, -1.0])
    _, k, q, rate = np.split(w @ softmax(x), [2, 4, 6])
    wanted = np.zeros_like(w)
    for rows, beta in ((slice(0, 2), 0), (slice(2, 4), 1), (slice(4, 6), 2), (slice(6, 10), 3)):
        value, mean = (w @ softmax(q))[rows], (w @ softmax(k))[rows]
        wanted[rows] = 1 / (1 + np.exp(-rate[beta])) * np.outer(value - mean, softmax(k))
    np.testing.assert_allclose(learner.change(learner.weight, jnp.asarray(x)), wanted, rtol=1e-5)


def test_where_key_and_query_agree_nothing_changes():
    learner = self_referential(1, 1, key=key(0), units=3)
    same = learner.weight.at[6:9].set(learner.weight[3:6])
    np.testing.assert_allclose(learner.change(same, jnp.ones(3)), 0, atol=1e-6)


def test_order_counts_and_padding_does_not():
    learner = self_referential(1, 1, key=key(0))
    x, y = jnp.array([[1.0], [2.0], [-1.0]]), jnp.array([[0.5], [1.0], [2.0]])
    whole = learner.step(learner.weight, Examples(x, y), key=key(1))
    turned = learner.step(learner.weight, Examples(x[::-1], y[::-1]), key=key(1))
    assert jnp.abs(whole - turned).max() > 1e-6
    padded = Examples(jnp.append(x, x[:1], 0), jnp.append(y, y[:1], 0), jnp.array([1.0, 1.0, 1.0, 0.0]))
    np.testing.assert_allclose(learner.step(learner.weight, padded, key=key(1)), whole, rtol=1e-6)


def test_it_learns_to_learn_sinusoids():
    """After a short training the support set helps: without it the query loss is higher by a tenth and more."""
    trainer = lift(self_referential(1, 1, key=key(0)), adam(1e-2), batch=25)
    trained = trainer.result(train(trainer, Sinusoids(), steps=800, seed=0)).learner
    untouched = jax.tree.map(lambda x: x, trained)
    seen = evaluate(trained, Sinusoids(), episodes=200, seed=1)["loss"].mean()
    object.__setattr__(untouched, "steps", 0)
    unseen = evaluate(untouched, Sinusoids(), episodes=200, seed=1)["loss"].mean()
    assert seen < 0.9 * unseen
