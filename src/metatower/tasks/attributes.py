"""What can be varied about a drawing, and how it is rendered with given values: on the device, many at a time."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from metatower.tasks.chance import settled

Range = tuple[float, float]


class Attribute(NamedTuple):
    """One thing about a picture that a number says.

    A distribution has a *centre* for each attribute. Where the attribute is the class, its values spread over
    centre ± `reach`; where it is not, it varies over centre ± some share of `nuisance`.
    """

    usual: Range
    """Centres of training distributions."""
    validation: Range
    """Centres of distributions held out for choices."""
    test: Range
    """Centres of distributions held out for the final word; no overlap with the other two."""
    reach: float
    nuisance: float


ATTRIBUTES: dict[str, Attribute] = {
    # degrees, anticlockwise
    "rotation": Attribute((-40, 40), (-90, -50), (50, 90), reach=60, nuisance=25),
    # doublings, of a letter that fills 0.6 of the picture
    "size": Attribute((-0.15, 0.15), (0.2, 0.35), (-0.4, -0.2), reach=0.6, nuisance=0.3),
    # sideways per upward pixel
    "slant": Attribute((-0.2, 0.2), (-0.5, -0.3), (0.3, 0.5), reach=0.6, nuisance=0.3),
    # shares of the picture's side, to the right and downwards
    "x": Attribute((-0.06, 0.06), (-0.15, -0.08), (0.08, 0.15), reach=0.2, nuisance=0.12),
    "y": Attribute((-0.06, 0.06), (-0.15, -0.08), (0.08, 0.15), reach=0.2, nuisance=0.12),
    # -1 hairlines, 1 fat
    "weight": Attribute((-0.2, 0.2), (-0.5, -0.3), (0.3, 0.5), reach=0.6, nuisance=0.4),
    # ink above the background, and the background; white is 1
    "ink": Attribute((0.45, 0.65), (0.65, 0.75), (0.3, 0.45), reach=0.3, nuisance=0.2),
    "background": Attribute((0.1, 0.3), (0.3, 0.4), (0.4, 0.5), reach=0.25, nuisance=0.15),
    # doublings of noise with a standard deviation of 0.05
    "grain": Attribute((-0.5, 0.5), (-1.2, -0.6), (0.6, 1.2), reach=2.0, nuisance=0.7),
}
"""To add one: a line here, and a line in `render`. What else can be the class is the character itself."""
NAMES = tuple(ATTRIBUTES)
NOISE_LENGTH = 1 << 15


def softened(images: UInt8[np.ndarray, "*pool h w"], size: int) -> UInt8[np.ndarray, "*pool h w"]:
    """Drawings blurred to what a picture of `size` pixels can show.

    Then one nearest pixel per pixel is enough for any warp, and a threshold makes strokes thin or fat.
    """
    side = images.shape[-1]
    sigma = 0.55 * side / size
    near = np.arange(side)
    kernel = np.exp(-((near[:, None] - near) ** 2) / (2 * sigma**2))
    kernel = (kernel / np.exp(-((np.arange(-side, side + 1)) ** 2) / (2 * sigma**2)).sum()).astype(np.float32)
    soft = kernel @ images.astype(np.float32) @ kernel.T
    # a blank rim, so that a pixel looked for outside finds nothing
    soft[..., [0, -1], :] = 0
    soft[..., :, [0, -1]] = 0
    return np.rint(soft).astype(np.uint8)


def noise_table() -> Float[np.ndarray, " length"]:
    """Standard normal numbers, of which every picture reads a stretch: much cheaper than drawing them."""
    return np.random.default_rng(0).standard_normal(NOISE_LENGTH).astype(np.float32)


def render(
    images: UInt8[Array, "classes drawings h w"],
    noise: Float[Array, " length"],
    which: Int[Array, " n"],
    values: Float[Array, "n attributes"],
    noise_from: Int[Array, " n"],
    inverted: Array,
    size: int,
) -> Float[Array, "n size size"]:
    """Pictures of drawings, with the values of `ATTRIBUTES` in their order.

    Args:
        images: drawings that have been `softened`.
        noise: the `noise_table`.
        which: drawing of each picture, counted through classes and drawings.
        noise_from: where each picture's stretch of noise begins.
        inverted: dark letters on a light ground instead of light on dark; a Boolean for all.
        size: pixels along a side.
    """
    height, width = images.shape[-2:]
    value = dict(zip(NAMES, values.T, strict=True))
    # the way back, from a place in the picture to the place in the drawing:
    # move back, turn back, shrink back, shear back
    angle = value["rotation"] * (math.pi / 180)
    stretch = jnp.exp2(-value["size"]) * 1.2  # letters fill 20 of the 28 pixels of their drawing
    cosine, sine = stretch * jnp.cos(angle), stretch * jnp.sin(angle)
    u_x, u_y = cosine + value["slant"] * sine, value["slant"] * cosine - sine
    u_0 = 0.5 - u_x * value["x"] - u_y * value["y"]
    v_0 = 0.5 - sine * value["x"] - cosine * value["y"]
    coefficients = [width * u_x, width * u_y, width * u_0, height * sine, height * cosine, height * v_0]
    coefficients += [0.3 * value["weight"] - 0.45, value["ink"], value["background"], 0.05 * jnp.exp2(value["grain"])]
    coefficients, which = settled(jnp.stack(coefficients)), settled(which.astype(jnp.float32)).astype(jnp.int32)
    which = which * (height * width)
    u_x, u_y, u_0, v_x, v_y, v_0, weight, ink, background, grain = coefficients[:, :, None, None]
    middle = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size - 0.5
    x, y = middle[None, None, :], middle[None, :, None]
    u = u_x * x + u_y * y + u_0
    v = v_x * x + v_y * y + v_0
    column, row = jnp.floor(jnp.clip(u, 0, width - 1)), jnp.floor(jnp.clip(v, 0, height - 1))
    at = which[:, None, None] + settled(row * width + column).astype(jnp.int32)
    shade = images.reshape(-1).at[at].get(mode="promise_in_bounds").astype(jnp.float32) * (1 / 255)
    shape = jnp.clip((shade + weight) * 2.5 + 0.5, 0, 1)
    shape = jnp.where(shade > 0.02, shape, 0.0)  # however fat: no ink where there is none
    normal = jax.vmap(lambda start: jax.lax.dynamic_slice(noise, (start,), (size * size,)))(noise_from)
    picture = background + ink * shape + grain * normal.reshape(-1, size, size)
    return jnp.where(inverted, 1 - picture, picture)


def ranges(split: str) -> tuple[Float[np.ndarray, "attributes 2"], Float[np.ndarray, "attributes 2"]]:
    """Usual centres, and those held out for `split` (the usual ones again for training)."""
    usual = np.array([a.usual for a in ATTRIBUTES.values()], np.float32)
    held = {"train": usual, "validation": [a.validation for a in ATTRIBUTES.values()]}
    return usual, np.array(held.get(split, [a.test for a in ATTRIBUTES.values()]), np.float32)
