"""Convolutional networks that adapt fast: every convolution is matrix products.

Each task has weights of its own, and XLA on a CPU runs its own convolution, batched over weights, far slower than
these products.
"""

from collections.abc import Sequence
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import conv_general_dilated as convolution
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.nets.adjoint import with_transpose
from metatower.nets.bilinear import Product, product
from metatower.nets.mlp import Linear
from metatower.nets.norm import BatchNorm, Mode, Moments, batch_norm
from metatower.nets.quarters import interleave, split
from metatower.nets.winograd import winograd

Images = Float[Array, "n height width channels"]
Maps = Float[Array, "n rows columns outputs"]


class Conv(eqx.Module):
    """A convolution with an odd square window, zeros around the image, and `ceil(side / stride)` outputs a side.

    Weights start normal with variance 2 / (size² · inputs) (He et al. 2015), biases at zero.
    """

    weight: Float[Array, "size size inputs outputs"]
    bias: Float[Array, " outputs"] | None
    stride: int = eqx.field(static=True)

    def __init__(
        self, inputs: int, outputs: int, *, key: PRNGKeyArray, size: int = 3, stride: int = 1, bias: bool = True
    ):
        if size % 2 == 0:
            raise ValueError(f"Conv: expected an odd size, so that a window has a middle, got {size}.")
        shape = (size, size, inputs, outputs)
        self.weight = jax.random.normal(key, shape) * (2 / (size * size * inputs)) ** 0.5
        self.bias = jnp.zeros(outputs) if bias else None
        self.stride = stride

    def __call__(self, x: Images) -> Maps:
        y = convolve(x, self.weight, self.stride)
        return y if self.bias is None else y + self.bias


def convolve(x: Images, w: Float[Array, "size size inputs outputs"], stride: int = 1) -> Maps:
    """`x` convolved with `w`, half a window of zeros around it; by the fastest route for these shapes."""
    if w.shape[2] < FEW:  # the patches are hardly longer than the image
        return _by_patches(x, w, stride)
    # the transforms of small inputs cost more than the products they save
    if w.shape[:2] == (3, 3) and stride == 1 and x.shape[1] * x.shape[2] >= 25:
        return winograd(x, w)
    return product(x, w, *_convolutions(x.shape[1], x.shape[2], w.shape[0], stride))


FEW = 16
"""Fewer input channels than these go by patches."""


@cache
def _convolutions(height: int, width: int, size: int, stride: int) -> tuple[Product, Product]:
    """The product for images of this size: for one `w` what was fastest on a CPU for each map, for many patches."""
    half = size // 2

    def out(x, w):
        return convolution(x, w, (stride, stride), [(half, half)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def by_patches(x, w):
        return _by_patches(x, w, stride)

    def to_images(y, w):
        shape = jax.ShapeDtypeStruct((y.shape[0], height, width, w.shape[2]), y.dtype)
        return jax.linear_transpose(lambda x: by_patches(x, w), shape)(y)[0]

    def to_weights(x, y):
        seen, y = patches(x, size, stride), y.reshape(-1, y.shape[-1])
        # in this order of the factors the product is half as fast again; the barrier keeps XLA from turning it round
        w = jax.lax.optimization_barrier(y.T @ seen.reshape(len(y), -1))
        return w.T.reshape(size, size, x.shape[-1], -1)

    return Product(out, to_images, to_weights), Product(by_patches, to_images, to_weights)


def _by_patches(x: Images, w: Float[Array, "size size inputs outputs"], stride: int) -> Maps:
    seen = patches(x, w.shape[0], stride)
    # as one matrix: XLA lays out the products of the backward pass badly if there are more axes
    y = seen.reshape(-1, seen.shape[-1]) @ w.reshape(-1, w.shape[-1])
    return y.reshape(*seen.shape[:-1], w.shape[-1])


def patches(x: Images, size: int, stride: int) -> Maps:
    """What each window sees, as one long pixel: `[n, height/stride, width/stride, size² · channels]`."""
    _, height, width, _ = x.shape
    half, rows, columns = size // 2, -(-height // stride), -(-width // stride)
    x = jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    ends = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    windows = [x[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i in range(size) for j in range(size)]
    return jnp.concatenate(windows, axis=-1)


def max_pool(x: Images) -> Float[Array, "n rows columns channels"]:
    """The largest of each 2x2 pixels (the first of equals gets the gradient); an odd last line is left out."""
    _, height, width, _ = x.shape
    upper_left, upper_right, lower_left, lower_right = _quarters(x[:, : height // 2 * 2, : width // 2 * 2])
    # selections rather than `max`: what the backward pass then keeps is one bit for each, and it is exact
    return _larger(_larger(upper_left, upper_right), _larger(lower_left, lower_right))


def near_pool(x: Images) -> Float[Array, "n rows columns channels"]:
    """The largest of each 2x2 pixels, one pixel apart: a line and a column fewer."""
    return _larger(_larger(x[:, :-1, :-1], x[:, :-1, 1:]), _larger(x[:, 1:, :-1], x[:, 1:, 1:]))


def _larger(a, b):
    return jnp.where(a >= b, a, b)


_quarters = with_transpose(split, lambda *quarters: (interleave(*quarters),))


class Block(eqx.Module):
    """Convolution, normalisation, pooling (if the convolution has stride 1), ReLU."""

    conv: Conv
    norm: BatchNorm
    near: bool = eqx.field(static=True, default=False)
    """Whether what is pooled overlaps, so that the picture is not halved."""

    def normalised(self, x: Images, weight: Array | None, given: Moments | None) -> tuple[Maps, Moments | None]:
        """The output and the statistics of its norm, see `BatchNorm.normalised`."""
        x, moments = self.norm.normalised(self.conv(x), weight, given)
        # pooled before the ReLU: the same numbers, a quarter of the work
        pool = near_pool if self.near else max_pool
        return jax.nn.relu(x if self.conv.stride > 1 else pool(x)), moments


class ConvNet(eqx.Module):
    """Blocks of 3x3 convolutions and a linear head: with four of them, the Conv-4 of the few-shot papers.

    Vinyals et al. 2016, section 4.1.1; with `stride=2` instead of pooling, Finn et al. 2017, section 5.2 (Omniglot).

    Args:
        outputs: classes, or what else the head gives; None for features, without a head.
        image: height, width, channels; a batch may leave the channel out if it is one.
        channels: channels of each block.
        stride: 1 pools 2x2 after each block, 2 skips every other pixel instead.
        norm: whose statistics the norms use, see `BatchNorm`.
        joined: the features are those of the last two blocks, the last of which does not halve (Bertinetto et al. 2019,
            section 4.1). It needs pooling.
    """

    blocks: list[Block]
    head: Linear | None
    joined: bool = eqx.field(static=True)
    features: int = eqx.field(static=True)
    """Numbers that go into the head."""

    def __init__(
        self,
        outputs: int | None,
        *,
        key: PRNGKeyArray,
        image: tuple[int, int, int] = (28, 28, 1),
        channels: Sequence[int] = (64, 64, 64, 64),
        stride: int = 1,
        norm: Mode = "transductive",
        joined: bool = False,
    ):
        if stride not in (1, 2):
            raise ValueError(f"ConvNet: expected stride 1 (with pooling) or 2 (without), got {stride}.")
        if joined and (stride == 2 or len(channels) < 2):
            raise ValueError("ConvNet: the features of two blocks are joined where there are two, and stride 1.")
        keys = jax.random.split(key, len(channels) + 1)
        pairs = zip([image[2], *channels[:-1]], channels, keys[:-1], strict=True)
        self.blocks = [Block(Conv(i, o, key=k, stride=stride), batch_norm(o, norm)) for i, o, k in pairs]
        self.joined = joined
        height, width = image[:2]
        for _ in channels[: len(channels) - joined]:
            height, width = (side // 2 if stride == 1 else -(-side // 2) for side in (height, width))
        if joined:
            last = self.blocks[-1]
            self.blocks[-1], height, width = Block(last.conv, last.norm, near=True), height - 1, width - 1
        if min(height, width) < 1:
            raise ValueError(f"ConvNet: {len(channels)} blocks halve an image of {image[0]}x{image[1]} to nothing.")
        self.features = height * width * sum(channels[-1 - joined :])
        self.head = None if outputs is None else Linear(self.features, outputs, key=keys[-1])

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        return self.normalised(x)[0]

    def normalised(
        self, x: Float[Array, "n ..."], weight: Float[Array, " n"] | None = None, given: Sequence | None = None
    ) -> tuple[Float[Array, "n outputs"], list[Moments | None]]:
        """The output and the statistics of every norm, see `BatchNorm.normalised`."""
        maps, statistics = self._layers(x, weight, given)
        return maps[-1], statistics

    def activations(self, x: Float[Array, "n ..."], given: Sequence | None = None) -> list[Array]:
        """What every block says, and last the output."""
        return self._layers(x, None, given)[0]

    def _layers(self, x, weight, given):
        x = x[..., None] if x.ndim == 3 else x
        maps, statistics = [], []
        for block, moments in zip(self.blocks, given or [None] * len(self.blocks), strict=True):
            x, moments = block.normalised(x, weight, moments)
            maps.append(x)
            statistics.append(moments)
        if self.joined:
            x = jnp.concatenate([near_pool(maps[-2]), x], axis=-1)
        x = x.reshape(len(x), -1)
        return [*maps, x if self.head is None else self.head(x)], statistics
