"""Convolutions by hand against XLA's own, up to second derivatives, batched over weights, in both modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.nets import Conv, ConvNet, batch_norm, convolve, max_pool
from metatower.nets.conv import patches
from metatower.nets.winograd import winograd


def by_xla(x, w, stride):
    half = w.shape[0] // 2
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (stride, stride), ((half, half),) * 2, dimension_numbers=numbers)


def images(n=2, height=6, width=7, channels=3):
    return jax.random.normal(jax.random.key(1), (n, height, width, channels), jnp.float64)


def weights(size=3, inputs=3, outputs=4):
    return jax.random.normal(jax.random.key(2), (size, size, inputs, outputs), jnp.float64)


def curve(convolution):
    """A scalar whose gradient with respect to the weights depends on the inputs, so that it has mixed derivatives."""

    def scalar(x, w):
        return jnp.sum(jnp.tanh(convolution(jnp.tanh(convolution(x, w)), w)) ** 2)

    def sharpness(x, w):
        return jnp.sum(jax.grad(scalar, argnums=1)(x, w) ** 3)

    return scalar, sharpness


def forward(f, _):
    """In forward mode, along one direction that is drawn: it is wrong if any slope is, and takes no whole Jacobian."""

    def along(*at):
        return jax.jvp(f, at, tuple(jax.random.normal(jax.random.key(3), x.shape, x.dtype) for x in at))

    return along


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("side", [(1, 1), (4, 5), (7, 6)])
def test_convolution_is_that_of_xla(size, stride, side, x64):
    x, w = images(2, *side), weights(size)
    np.testing.assert_allclose(convolve(x, w, stride), by_xla(x, w, stride), atol=1e-12)


@pytest.mark.parametrize("side", [(1, 1), (5, 5), (6, 9), (14, 14)])
def test_winograd_is_that_of_xla(side, x64):
    x, w = images(2, *side, 16), weights(3, 16)
    np.testing.assert_allclose(winograd(x, w), by_xla(x, w, 1), atol=1e-11)


def test_winograd_is_what_wide_convolutions_take(x64):
    x, w = images(channels=16), weights(inputs=16)
    primitives = str(jax.make_jaxpr(convolve)(x, w))
    assert "linear_with_transpose" in primitives
    assert "linear_with_transpose" not in str(jax.make_jaxpr(lambda x, w: convolve(x, w, 2))(x, w))


@pytest.mark.parametrize(
    "ours", [winograd, lambda x, w: (patches(x, 3, 1).reshape(-1, 27) @ w.reshape(27, 3)).reshape(x.shape)]
)
@pytest.mark.parametrize("order", [0, 1])
def test_derivatives_are_those_of_xla(ours, order, x64):
    x, w = images(), weights(outputs=3)
    theirs = curve(lambda x, w: by_xla(x, w, 1))[order]
    ours = curve(ours)[order]
    for mode in (jax.grad, forward):
        for got, expected in zip(mode(ours, (0, 1))(x, w), mode(theirs, (0, 1))(x, w), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_every_task_may_have_weights_of_its_own(x64):
    x, w = images(channels=16), weights(3, 16, 16)
    many = jnp.stack([w, 2 * w, w[::-1]])
    sharp = jax.grad(curve(winograd)[1], 1)
    together = jax.jit(jax.vmap(sharp, (None, 0)))(x, many)
    np.testing.assert_allclose(together, jnp.stack([sharp(x, each) for each in many]), rtol=1e-9)


@pytest.mark.parametrize("side", [(6, 7), (5, 8)])
@pytest.mark.parametrize("order", [0, 1])
def test_strided_convolutions_of_many_channels(side, order, x64):
    """A product with derivatives of its own: to the second order, in both modes, for many weights or images."""
    x, w = images(2, *side, 16), 0.1 * weights(3, 16, 16)

    def twice(f):
        return curve(lambda x, w: f(x, w, 2))[order]

    assert "product" in str(jax.make_jaxpr(lambda x, w: convolve(x, w, 2))(x, w))
    for mode in (jax.grad, forward):
        for got, expected in zip(mode(twice(convolve), (0, 1))(x, w), mode(twice(by_xla), (0, 1))(x, w), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10)
    for axes, arguments in (((None, 0), (x, jnp.stack([w, 2 * w]))), ((1, None), (jnp.stack([x, -x], 1), w))):
        for mode in (jax.grad, forward):
            got = jax.jit(jax.vmap(mode(twice(convolve), (0, 1)), axes))(*arguments)
            expected = jax.vmap(mode(twice(by_xla), (0, 1)), axes)(*arguments)
            for each, other in zip(got, expected, strict=True):
                np.testing.assert_allclose(each, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("side", [(4, 6), (5, 7)])
def test_max_pool_is_the_largest_of_four(side, x64):
    x = images(2, *side)
    expected = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    np.testing.assert_array_equal(max_pool(x), expected)
    slopes = jax.grad(lambda x: jnp.sum(jnp.sin(max_pool(x))))(x)
    chosen = jax.grad(lambda x: jnp.sum(jnp.sin(by_reduce(x))))(x)
    np.testing.assert_allclose(slopes, chosen, rtol=1e-12)


def by_reduce(x):
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)
    return jnp.max(x, axis=(2, 4))


def test_of_equals_the_first_gets_the_gradient():
    slopes = jax.grad(lambda x: jnp.sum(max_pool(x)))(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(slopes.ravel(), [1, 0, 0, 0])


def test_norm_makes_mean_zero_and_variance_one():
    norm = batch_norm(3)
    y = norm(5 + 2 * jax.random.normal(jax.random.key(0), (10, 4, 4, 3)))
    np.testing.assert_allclose(jnp.mean(y, (0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(jnp.var(y, (0, 1, 2)), 1, atol=1e-3)


def test_norm_of_a_constant_is_finite_to_the_second_derivative():
    def loss(norm, x):
        return jnp.sum(norm(x) ** 3)

    def sharp(norm, x):
        return jnp.sum(jax.grad(loss, argnums=1)(norm, x) ** 2)

    slopes = jax.grad(sharp, argnums=1)(batch_norm(2), jnp.full((3, 2, 2, 2), 7.0))
    assert jnp.all(jnp.isfinite(slopes))


@pytest.mark.parametrize(("stride", "features"), [(1, 64), (2, 256)])
def test_conv_4_is_that_of_the_papers(stride, features):
    net = ConvNet(5, key=jax.random.key(0), stride=stride)
    assert net.head.weight.shape in ((features, 5), (5, features))
    x = jax.random.uniform(jax.random.key(1), (3, 28, 28))
    np.testing.assert_array_equal(net(x), net(x[..., None]))
    assert net(x).shape == (3, 5)


def test_images_that_shrink_to_nothing_are_refused():
    with pytest.raises(ValueError, match="4 blocks halve an image of 8x28 to nothing"):
        ConvNet(5, key=jax.random.key(0), image=(8, 28, 1))


def test_even_windows_and_odd_strides_are_refused():
    with pytest.raises(ValueError, match="odd size"):
        Conv(1, 1, key=jax.random.key(0), size=2)
    with pytest.raises(ValueError, match="stride 1"):
        ConvNet(5, key=jax.random.key(0), stride=3)


def test_winograd_in_single_precision_is_as_exact_as_the_direct_way(x64):
    x, w = images(2, 14, 14, 64), weights(3, 64, 64)
    exact = by_xla(x, w, 1)
    single = x.astype(jnp.float32), w.astype(jnp.float32)
    direct = jnp.max(jnp.abs(by_xla(*single, 1) - exact))
    assert jnp.max(jnp.abs(winograd(*single) - exact)) < 10 * direct


def test_features_of_two_blocks_are_joined():
    net = ConvNet(None, key=jax.random.key(0), channels=(2, 3, 4, 5), joined=True)
    x = jax.random.normal(jax.random.key(1), (3, 28, 28, 1))
    *_, third, fourth, features = net.activations(x)
    assert third.shape == (3, 3, 3, 4)
    assert fourth.shape == (3, 2, 2, 5)  # 3x3 pixels, of which four quadruples are next to each other
    assert features.shape == (3, net.features) == (3, 2 * 2 * (4 + 5))
    both = features.reshape(3, 2, 2, 9)
    np.testing.assert_array_equal(both[..., 4:], fourth)
    np.testing.assert_array_equal(both[:, 1, 0, :4], jnp.max(third[:, 1:, :2], axis=(1, 2)))
    for wrong in ({"stride": 2}, {"channels": (2,)}):
        with pytest.raises(ValueError, match="joined"):
            ConvNet(None, key=jax.random.key(0), joined=True, **wrong)
