"""Gates that are 0 or 1 and have derivatives; networks inside a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import key

from metatower import Constant
from metatower.core import pick
from metatower.nets import Examples, Supervised, squared_error
from metatower.nets.discriminator import Discriminator, fingerprint, gradient_penalty, relativistic
from metatower.nets.generator import Generator, TaskEncoder
from metatower.nets.super_net import OPS, OfOps, Structure, choose, of_ops, open_or_shut, super_net

pytestmark = pytest.mark.usefixtures("quick_compile")
X = jnp.linspace(-1, 1, 5)[:, None]


@pytest.mark.parametrize("op", OPS)
def test_of_one_operation_it_is_that_network(op):
    net = super_net((1, 3, 3, 2), op, key=key(0))
    first, second, last = net.layers
    wanted = last(OPS[op](second(OPS[op](first(X)))))
    np.testing.assert_allclose(net(X), wanted, rtol=1e-5)
    np.testing.assert_allclose(OfOps(net.layers, (op, op))(X), wanted, rtol=1e-5)
    assert len(pick(net)) == 6  # weights and biases, and no gate


def test_every_layer_may_have_its_own_operation():
    net = super_net((1, 3, 3, 2), ("sin", "skip"), key=key(0))
    first, second, last = net.layers
    np.testing.assert_allclose(net(X), last(second(jnp.sin(first(X)))), rtol=1e-5)
    np.testing.assert_allclose(net(X), OfOps(net.layers, ("sin", "skip"))(X), rtol=1e-5)
    with pytest.raises(ValueError, match=r"each of 2 hidden layers, got \('sin',\)"):
        super_net((1, 3, 3, 2), ("sin",), key=key(0))


def test_units_that_are_shut_have_no_part_and_cost_nothing():
    net = super_net((1, 4, 2), "tanh", key=key(0))
    structure = of_ops(("tanh",), 4)
    half = net.with_structure(Structure(structure.ops, jnp.array([[1.0, 0.0, 1.0, 0.0]])))
    first, last = net.layers
    wanted = jnp.tanh(X @ first.weight[:, ::2] + first.bias[::2]) @ last.weight[::2] + last.bias
    np.testing.assert_allclose(half(X), wanted, rtol=1e-5)
    assert net.cost() == 1.0
    assert half.cost() == 0.5


def test_a_layer_that_skips_melts_into_the_next():
    net = super_net((1, 3, 3, 1), "skip", key=key(0))
    np.testing.assert_allclose(jnp.diff(net(X)[:, 0], 2), 0.0, atol=1e-6)  # linear altogether


def test_gates_are_hard_forward_and_soft_backward():
    logits = jnp.array([0.3, -0.2, 0.1])
    np.testing.assert_array_equal(choose(logits), [1, 0, 0])
    slope = jax.grad(lambda x: choose(x, 0.5)[0])(logits)
    soft = jax.nn.softmax(logits / 0.5)
    np.testing.assert_allclose(slope, soft[0] * (jnp.eye(3)[0] - soft) / 0.5, rtol=1e-5)
    np.testing.assert_array_equal(open_or_shut(jnp.array([2.0, -2.0])), [1, 0])
    np.testing.assert_allclose(jax.grad(open_or_shut)(0.5), jax.nn.sigmoid(0.5) * jax.nn.sigmoid(-0.5), rtol=1e-5)


def test_drawn_gates_follow_their_probabilities():
    logits = jnp.array([1.0, 0.0, -1.0])
    drawn = jax.vmap(lambda k: choose(logits, 0.3, key=k))(jax.random.split(jax.random.key(0), 4000))
    assert set(np.unique(drawn)) <= {0.0, 1.0}
    np.testing.assert_allclose(drawn.mean(0), jax.nn.softmax(logits), atol=0.03)  # Gumbel-max: whatever the temperature
    open_ = jax.vmap(lambda k: open_or_shut(jnp.array(1.0), 0.3, key=k))(jax.random.split(jax.random.key(1), 4000))
    np.testing.assert_allclose(open_.mean(), jax.nn.sigmoid(1.0), atol=0.03)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="operation of skip, relu, tanh, sin, gauss; got 'cos'"):
        super_net((1, 2, 1), "cos", key=key(0))
    with pytest.raises(ValueError, match="at least one hidden layer"):
        super_net((1, 1), key=key(0))


def test_a_generator_writes_weights_in_the_light_of_the_structure_and_takes_another_instead():
    make = Generator((1, 3, 3, 1), chance=2, context=2, units=8, latent=4, key=key(0))
    z, c = jnp.ones(2), jnp.array([0.5, -1.0])
    said = make(z, c)
    assert [x.shape for x in said.weights] == [(1, 3), (3,), (3, 3), (3,), (3, 1), (1,)]
    assert said.rates.shape == (6,)
    np.testing.assert_array_equal(said.structure.ops.sum(axis=1), [1, 1])
    other = of_ops(("gauss", "gauss"), 3)
    instead = make(z, c, instead=other, share=1.0)
    np.testing.assert_array_equal(instead.structure.ops, other.ops)
    assert jnp.any(instead.weights[0] != said.weights[0])
    np.testing.assert_allclose(make(z, c, instead=other, share=0.0).weights[0], said.weights[0])
    assert jnp.any(make(z, -c).weights[0] != said.weights[0])
    assert jnp.any(make(-z, c).weights[0] != said.weights[0])


def test_logits_get_a_gradient_through_the_hard_gates():
    make = Generator((1, 3, 1), chance=2, context=2, units=8, latent=4, key=key(0))
    net = super_net((1, 3, 1), key=key(1))

    def loss(make):
        return jnp.sum(net.with_structure(make(jnp.ones(2), jnp.ones(2)).structure)(X) ** 2)

    slopes = jax.grad(loss)(make)
    assert jnp.any(slopes.ops != 0)
    assert jnp.any(slopes.units != 0)


def test_an_encoder_of_tasks_knows_no_order_of_examples():
    from metatower import Task

    encode = TaskEncoder(1, 1, 6, key=key(0))
    y = jnp.sin(3 * X)
    one = encode(Task(Examples(X, y), Examples(X[:3], y[:3])))
    two = encode(Task(Examples(X[::-1], y[::-1]), Examples(X[:3], y[:3])))
    np.testing.assert_allclose(one, two, rtol=1e-5)
    assert jnp.any(jnp.abs(one - encode(Task(Examples(X, -y), Examples(X[:3], y[:3])))) > 1e-3)


def test_a_fingerprint_is_of_the_function_and_not_of_the_weights():
    support, probes = Examples(X, X**2), jnp.linspace(-2, 2, 4)[:, None]
    net = super_net((1, 4, 1), "tanh", key=key(0))
    turned = jax.tree.map(lambda x: x, net)
    order = jnp.array([2, 0, 3, 1])
    first, last = net.layers
    import equinox as eqx

    turned = eqx.tree_at(
        lambda net: [net.layers[0].weight, net.layers[0].bias, net.layers[1].weight],
        net,
        [first.weight[:, order], first.bias[order], last.weight[order]],
    )
    seen, same = (fingerprint(Supervised(each, squared_error), support, probes) for each in (net, turned))
    assert seen.shape == (4 + 5 + 2,)
    np.testing.assert_allclose(seen, same, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen[:4], net(probes)[:, 0], rtol=1e-5)
    np.testing.assert_allclose(seen[4:9], 2 * (net(X) - X**2)[:, 0], rtol=1e-4, atol=1e-5)
    assert seen[-1] == 1.0


def test_the_relativistic_loss_and_its_penalty_by_hand():
    ours, theirs = jnp.array([2.0, 0.0]), jnp.array([0.0, 1.0])
    wanted = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(1.0))) / 2
    np.testing.assert_allclose(relativistic(ours, theirs), wanted, rtol=1e-6)
    slope = jnp.array([3.0, 4.0])
    np.testing.assert_allclose(gradient_penalty(lambda x: x @ slope, jnp.ones((5, 2))), 12.5, rtol=1e-6)
    judge = Discriminator(3, 2, units=4, key=key(0))
    assert judge(jnp.ones(3), jnp.ones(2)) != judge(jnp.ones(3), -jnp.ones(2))  # it is told the distribution
    assert isinstance(super_net((1, 2, 1), key=key(0)).structure, Constant)
