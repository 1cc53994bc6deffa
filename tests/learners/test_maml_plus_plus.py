import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import Blobs, curve, data, embedding, key, number

from metatower import Descend, lift, sgd
from metatower.core import pick
from metatower.gradients import MultiStep
from metatower.learners import maml_plus_plus
from metatower.nets import Supervised, cross_entropy

pytestmark = pytest.mark.usefixtures("quick_compile")


def learner():
    return maml_plus_plus(Supervised(embedding(), cross_entropy), 0.1, steps=2)


def test_norms_take_their_own_values_at_every_step_and_are_not_adapted():
    it = learner()
    values = [jnp.stack([v[0] + 1, v[1] + 2]) for v in it.rule.values]
    it = Descend(it.objective, type(it.rule)(it.rule.rule, values, it.rule.which), 2)
    support = Blobs(number(0.5)).sample(key(0)).support
    state = it.start(key=key(0))
    for step in range(3):
        state = it.step(state, support, key=key(1))
        norm = it.result(state).net.norm
        np.testing.assert_array_equal(norm.scale, values[0][min(step, 1)])
        np.testing.assert_array_equal(norm.shift, values[1][min(step, 1)])
    assert jnp.any(it.result(state).net.linear.weight != it.objective.net.linear.weight)


def test_values_and_rates_of_every_step_are_learned():
    trainer = lift(learner(), sgd(0.1), batch=4, gradient=MultiStep(jnp.array([0.5, 0.5])))
    before = trainer.start(key=key(0))
    after = trainer.step(before, Blobs(number(0.5)), key=key(1))
    old, new = (pick(trainer.result(state).learner.rule) for state in (before, after))
    assert [leaf.shape for leaf in old] == [(2, 4), (2, 3), (2, 3)]  # four leaves, two of them norms of three channels
    for a, b in zip(old[1:], new[1:], strict=True):
        assert jnp.all(jnp.any(a != b, axis=1))
    assert jnp.all(jnp.any(old[0] != new[0], axis=1))


def test_without_norms_it_is_maml_with_rates_per_layer_and_step():
    it = maml_plus_plus(curve(), 0.2, steps=2)
    np.testing.assert_allclose(np.exp(pick(it.rule)[0]), np.full((2, 2), 0.2), rtol=1e-6)
    assert jax.tree.all(jax.tree.map(jnp.isfinite, it.adapt(data(0), key=key(0)).leaves))
