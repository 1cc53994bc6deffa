"""The product of a linear layer is the plain product, in its values and in all its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.nets.dense import dense

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")


def plain(x, w):
    return x @ w


def arrays(*shapes):
    keys = jax.random.split(jax.random.key(3), len(shapes))
    return [jax.random.normal(key, shape, jnp.float64) for key, shape in zip(keys, shapes, strict=True)]


def loss(layer):
    return lambda x, w: jnp.sum(jnp.sin(layer(jnp.tanh(layer(x, w)), w.T)) ** 2)


def gradient_step(layer):
    """After a step on w, so that derivatives of it are second and third ones."""
    return lambda x, w: loss(layer)(x, w - 0.1 * jax.grad(loss(layer), 1)(x, w))


VIEWS = {
    "gradient": lambda layer: jax.value_and_grad(loss(layer), (0, 1)),
    "forward over reverse": lambda layer: jax.jacfwd(jax.grad(loss(layer), 1), (0, 1)),
    "gradient of a step": lambda layer: jax.grad(gradient_step(layer), (0, 1)),
}
AXES = {"one": None, "many x": (0, None), "many w": (None, 0), "many of both": (0, 0), "tasks behind": (2, 1)}


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (5, 3)], ids=["wider", "narrower"])
def test_it_is_the_plain_product(view, axes, inputs, outputs):
    """`inputs` on either side of `outputs`: the gradient by w has a way for each."""
    axes = AXES[axes]
    shapes = [(4, inputs), (inputs, outputs)]
    if axes:
        shapes = [
            shape if axis is None else (*shape[:axis], 6, *shape[axis:])
            for shape, axis in zip(shapes, axes, strict=True)
        ]
    x, w = arrays(*shapes)
    got, expected = (
        jax.jit(jax.vmap(VIEWS[view](each), axes) if axes else VIEWS[view](each)) for each in (dense, plain)
    )
    for a, b in zip(jax.tree.leaves(got(x, w)), jax.tree.leaves(expected(x, w)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_derivatives_of_a_batch_are_those_of_its_members():
    """The gradient is taken after `vmap` here: of the mean over tasks, each with weights of its own."""
    x, w = arrays((7, 4, 3), (7, 3, 5))

    def mean(layer):
        return lambda x, w: jnp.mean(jax.vmap(gradient_step(layer))(x, w))

    got, expected = (jax.jit(jax.grad(mean(each), (0, 1)))(x, w) for each in (dense, plain))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
