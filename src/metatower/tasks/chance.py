"""Random numbers for sampling tasks, cheap to draw and above all cheap to compile.

A tower has a draw on every storey, forward and backward, and this one compiles in a fraction of the time of JAX's own
generator under `vmap` (`benchmarks/keys.py`). Every sample still has a key of its own (`core.keys`); the numbers drawn
*from* one sample's key are made here, by a keyed integer hash of their position.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.core.keys import mix

ROW = 8


def uniforms(key: PRNGKeyArray, *shapes: tuple[int, ...]) -> list[Float[Array, "..."]]:
    """Independent uniform numbers of at least 0 and below 1, an array for each shape. Use a key for one call only."""
    sizes = [_size(shape) for shape in shapes]
    words = jax.random.key_data(key).reshape(-1)
    position = jnp.arange(sum(sizes), dtype=jnp.uint32)
    bits = mix(position * jnp.uint32(0x9E3779B9) + words[0] + jnp.uint32(0x7F4A7C15))
    for word in words[1:]:
        bits = mix(bits + word + jnp.uint32(0x9E3779B9))
    numbers = settled((bits >> 8).astype(jnp.float32) * (1 / (1 << 24)))
    out, start = [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        out.append(numbers[start : start + size].reshape(shape))
        start += size
    return out


def settled(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The same finite numbers, which a CPU then works out once.

    XLA puts what leads to a number into every loop that reads it: a hash is done again for each pixel of a picture, and
    its barrier does not last until then. No loop takes in a matrix product, and one with the identity is exact.
    """
    if jax.default_backend() != "cpu":
        return x
    flat = jnp.pad(x.reshape(-1), (0, -x.size % ROW)).reshape(-1, ROW)
    once = jnp.matmul(flat, jnp.eye(ROW, dtype=x.dtype), precision=jax.lax.Precision.HIGHEST)
    return once.reshape(-1)[: x.size].reshape(x.shape)


def integer(chance: Float[Array, "*shape"], below: Int[Array, "..."] | int) -> Int[Array, "*shape"]:
    """The integer from 0 up to but not including `below` that a uniform number stands for."""
    return jnp.minimum(jnp.floor(chance * below).astype(jnp.int32), below - 1)


def ranks(chance: Float[Array, "*batch n"]) -> Int[Array, "*batch n"]:
    """A random order of n things: how many of the last axis are smaller. By counting, faster than a sort of few."""
    smaller = chance[..., None, :] < chance[..., :, None]
    place = jnp.arange(chance.shape[-1])
    tied = (chance[..., None, :] == chance[..., :, None]) & (place[None, :] < place[:, None])
    return jnp.sum(smaller | tied, axis=-1, dtype=jnp.int32)


def distinct(
    chance: Float[Array, "*batch 2 number"], below: Int[Array, "*batch"] | Int[Array, ""] | int
) -> Int[Array, "*batch number"]:
    """Different integers below `below`, in random order: every choice and order is as likely as any other.

    Costs `number`² however many there are to choose from, which may be thousands and differ within the batch; there
    must be at least `number`. Floyd's algorithm (Bentley 1987), then a shuffle, as it leaves late ones late.
    """
    number = chance.shape[-1]

    def choose(i, chosen):
        last = below - number + i
        one = integer(chance[..., 0, i], last + 1)
        taken = jnp.any(chosen == one[..., None], axis=-1)
        return jnp.where(jnp.arange(number) == i, jnp.where(taken, last, one)[..., None], chosen)

    chosen = jax.lax.fori_loop(0, number, choose, jnp.full((*chance.shape[:-2], number), -1, jnp.int32))
    return jnp.take_along_axis(chosen, ranks(chance[..., 1, :]), axis=-1)


def shuffled(
    chance: Float[Array, "*batch n"], below: Int[Array, "..."] | int, number: int
) -> Int[Array, "*batch number"]:
    """As `distinct`, by sorting: faster where there are at most n, a few dozen, to choose from."""
    allowed = jnp.where(jnp.arange(chance.shape[-1]) < jnp.asarray(below)[..., None], chance, -1.0)
    return jax.lax.top_k(allowed, number)[1]


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
