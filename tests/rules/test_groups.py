"""What storey 2 can learn besides rates: each starts as nothing, and does what its formula says."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower import Descend, lift, sgd
from metatower.core import pick
from metatower.gradients import MultiStep, Unrolled
from metatower.nets import MLP, Examples, Supervised, cross_entropy, learned_loss, squared_error
from metatower.rules import kronecker, task_conditioned
from metatower.tasks.functions import Sinusoids

pytestmark = pytest.mark.usefixtures("quick_compile")
LEAVES = [jnp.arange(6.0).reshape(2, 3), jnp.array([1.0, -1.0]), jnp.array(2.0)]
GRADIENT = [jnp.ones((2, 3)), jnp.array([1.0, 2.0]), jnp.array(3.0)]


def moves(rule):
    return rule.step(rule.start(LEAVES), LEAVES, GRADIENT)[1]


@pytest.mark.parametrize("make", [kronecker, lambda o, rule: task_conditioned(o, rule, key=jax.random.key(0))])
def test_fresh_they_do_what_the_rule_does(make):
    for one, other in zip(moves(make(LEAVES, sgd(0.1))), moves(sgd(0.1)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_the_preconditioner_multiplies_from_both_sides():
    rule = kronecker(LEAVES, sgd(1.0))
    turn, swap = jnp.array([[0.0, 1.0], [2.0, 0.0]]), jnp.diag(jnp.array([1.0, 2.0, 3.0]))
    rule = eqx.tree_at(lambda r: (r.left, r.right), rule, ([turn, turn, jnp.array(0.5)], [swap, None, None]))
    moved = moves(rule)
    np.testing.assert_allclose(moved[0], LEAVES[0] - np.array([[1, 2, 3], [2, 4, 6]]))
    np.testing.assert_allclose(moved[1], [1 - 2, -1 - 2])
    np.testing.assert_allclose(moved[2], 2 - 1.5)
    with pytest.raises(ValueError, match="fit no list of 2 leaves"):
        rule.start(LEAVES[:2])


def test_the_network_scales_steps_and_decays_weights():
    rule = task_conditioned(LEAVES, sgd(0.1), key=jax.random.key(0), units=1)
    # one unit that always says 1; a of the second leaf is log 2, b of the third so that twice the sigmoid is 0.5
    says = jnp.zeros((1, 6)).at[0, 1].set(2 * jnp.arctanh(jnp.log(2.0) / 2)).at[0, 5].set(-jnp.log(3.0))
    rule = eqx.tree_at(lambda r: (r.first, r.bias, r.second), rule, (jnp.zeros((6, 1)), jnp.ones(1), says))
    moved = moves(rule)
    np.testing.assert_allclose(moved[0], LEAVES[0] - 0.1)
    np.testing.assert_allclose(moved[1], [1 - 0.2, -1 - 0.4], rtol=1e-6)
    np.testing.assert_allclose(moved[2], 0.5 * 2 - 0.3, rtol=1e-6)
    with pytest.raises(ValueError, match="made for 3 leaves, and the rule moves 2"):
        rule.start(LEAVES[:2])


@pytest.mark.parametrize("labels", [False, True])
def test_the_learned_loss_starts_as_the_plain_one_and_does_not_judge(labels):
    x = jnp.linspace(-1, 1, 8).reshape(4, 2)
    data = Examples(x, jnp.array([0, 1, 1, 0]) if labels else x @ jnp.eye(2))
    plain = Supervised(MLP((2, 3, 2), key=jax.random.key(0)), cross_entropy if labels else squared_error)
    loss, key = learned_loss(plain, 2, key=jax.random.key(1)), jax.random.key(2)
    assert loss.loss(data, key=key)[0] == plain.loss(data, key=key)[0]
    other = eqx.tree_at(lambda o: o.second, loss, jnp.ones(16))
    assert other.loss(data, key=key)[0] != plain.loss(data, key=key)[0]
    learner = Descend(other, sgd(0.1), learn=lambda o: o.objective)
    start = learner.start(key=key)
    assert learner.loss(start, data, key=key)[0] == plain.loss(data, key=key)[0]
    # it adapts by the learned loss: another one leads elsewhere
    by_plain = Descend(plain, sgd(0.1)).adapt(data, key=key).leaves
    assert any(not np.allclose(a, b) for a, b in zip(learner.adapt(data, key=key).leaves, by_plain, strict=True))


def test_storey_2_learns_the_weights_of_steps():
    maml = Descend(Supervised(MLP((1, 3, 1), key=jax.random.key(0)), squared_error), sgd(0.1), steps=2)
    trainer = lift(maml, sgd(0.1), gradient=MultiStep(jnp.array([0.0, 1.0]), learned=True), steps=2)
    fixed = lift(maml, sgd(0.1), gradient=MultiStep(jnp.array([0.0, 1.0])), steps=2)
    assert len(pick(trainer)) == len(pick(fixed)) + 1
    tasks, key = Sinusoids(), jax.random.key(1)
    ends = [eqx.filter_jit(lambda t, k: t.adapt(tasks, key=k))(t, key).leaves for t in (trainer, fixed)]
    exact = lift(maml, sgd(0.1), gradient=Unrolled(), steps=2).adapt(tasks, key=key).leaves
    for one, other, plain in zip(*ends, exact, strict=True):
        np.testing.assert_allclose(one, other)
        np.testing.assert_allclose(one, plain, rtol=1e-4, atol=1e-6)
