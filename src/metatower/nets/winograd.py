"""3x3 convolutions of stride 1 in 16 multiplications for every 4 outputs instead of 36.

Winograd's minimal filtering F(2x2, 3x3), Lavin and Gray 2016 ("Fast algorithms for convolutional neural networks",
section 4.1): tiles of 4x4 inputs, two apart, give 2x2 outputs each, `Y = Aᵀ [(G g Gᵀ) ∘ (Bᵀ d B)] A`. In the
transformed space the sum over channels is one matrix product for each of the 16 positions, forward, backward and in
every higher derivative. The error in float32 is of the order of the direct method's.
"""

from functools import cache

import jax.numpy as jnp
from jaxtyping import Array, Float

from metatower.nets.adjoint import with_transpose
from metatower.nets.quarters import interleave, split

B = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # Bᵀ of the paper
G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
A = ((1, 1, 1, 0), (0, 1, -1, -1))  # Aᵀ of the paper


def winograd(x: Float[Array, "n height width inputs"], w: Float[Array, "3 3 inputs outputs"]) -> Float[Array, "..."]:
    """The convolution of `x` with `w`, stride 1, one pixel of zeros around: `[n, height, width, outputs]`."""
    _, height, width, _ = x.shape
    to_tiles, from_tiles = _transforms(height, width)
    g = jnp.asarray(G, w.dtype)
    u = jnp.einsum("ai,bj,ijco->abco", g, g, w)
    v = to_tiles(x)
    products = [v[4 * a + b] @ u[a, b] for a in range(4) for b in range(4)]
    return from_tiles(*products)[0]


@cache
def _transforms(height: int, width: int):
    """(x -> the 16 tiled arrays, 16 products -> y), each with the other direction as its hand-written transpose.

    JAX's own transposes of strided slices are scatters into zeros, one per slice, added up.
    """
    rows, columns = -(-height // 2), -(-width // 2)

    def tiles(x):
        channels = x.shape[-1]
        x = jnp.pad(x, ((0, 0), (1, 1 + 2 * rows - height), (1, 1 + 2 * columns - width), (0, 0)))
        d = [[x[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] for j in range(4)] for i in range(4)]
        return tuple(t.reshape(-1, channels) for line in _both(B, d) for t in line)

    def tiles_transposed(*v):
        v = _square([t.reshape(-1, rows, columns, t.shape[-1]) for t in v], 4)
        d = _both(tuple(zip(*B, strict=True)), v)
        # a pixel belongs to the tile that begins at it and to the one that began two before
        d = [[_shifted_sum(d[i][j], d[i + 2][j], 1) for j in range(4)] for i in range(2)]
        d = [[_shifted_sum(d[i][j], d[i][j + 2], 2) for j in range(2)] for i in range(2)]
        return (interleave(*d[0], *d[1])[:, 1 : 1 + height, 1 : 1 + width],)

    def outputs(*m):
        m = _square([t.reshape(-1, rows, columns, t.shape[-1]) for t in m], 4)
        upper, lower = _both(A, m)
        return (interleave(*upper, *lower)[:, :height, :width],)

    def outputs_transposed(y):
        y = jnp.pad(y, ((0, 0), (0, 2 * rows - height), (0, 2 * columns - width), (0, 0)))
        lines = _both(tuple(zip(*A, strict=True)), _square(split(y), 2))
        return tuple(t.reshape(-1, t.shape[-1]) for line in lines for t in line)

    return with_transpose(tiles, tiles_transposed), with_transpose(outputs, outputs_transposed)


def _both(matrix, square):
    """`matrix @ square @ matrix.T` on a square of arrays."""
    half = [[_combine(row, [line[j] for line in square]) for j in range(len(square))] for row in matrix]
    return [[_combine(row, line) for row in matrix] for line in half]


def _combine(coefficients, arrays):
    """The sum of the arrays, each times 1, 0 or -1; nothing is computed for the zeros."""
    first, *others = (array if c == 1 else -array for c, array in zip(coefficients, arrays, strict=True) if c)
    return sum(others, start=first)


def _square(items, side):
    return [items[side * i : side * i + side] for i in range(side)]


def _shifted_sum(first, second, axis):
    """`first`, and `second` one place further on along `axis`."""

    def pad(array, before, after):
        return jnp.pad(array, [(before, after) if i == axis else (0, 0) for i in range(4)])

    return pad(first, 0, 1) + pad(second, 1, 0)
