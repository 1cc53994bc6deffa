"""A batch of pictures taken apart by even and odd lines and columns, and put together again."""

import jax.numpy as jnp


def split(x):
    """Upper left, upper right, lower left and lower right of each 2x2 pixels: `[n, height/2, width/2, channels]`."""
    return tuple(x[:, i::2, j::2] for i in range(2) for j in range(2))


def interleave(*quarters):
    """What `split` gives, put together: its inverse and, as both only move numbers, its transpose."""
    n, height, width, channels = quarters[0].shape
    lines = jnp.stack([jnp.stack(quarters[:2], axis=3), jnp.stack(quarters[2:], axis=3)], axis=2)
    return lines.reshape(n, 2 * height, 2 * width, channels)
