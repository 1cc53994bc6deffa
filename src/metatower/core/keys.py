"""Keys out of keys, by position.

The key of step i of a run does not depend on how long the run is, so that a run may be taken step by step from the
host and go on beyond its length. And it is cheap: a tower derives keys on every storey, in forward and backward passes,
and this is fewer operations to compile than JAX's `split` (`benchmarks/keys.py`). Numbers that are *drawn* from a key
still come from its own generator.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PRNGKeyArray, UInt32


def fork(key: PRNGKeyArray, number: int) -> Key[Array, " number"]:
    """`number` keys out of one, as `jax.random.split` gives. Use `key` for nothing else."""
    return fork_at(key, jnp.arange(number))


def fork_at(key: PRNGKeyArray, position: Int[Array, "*shape"]) -> Key[Array, "*shape"]:
    """The keys at these positions of `fork`, however many there are: by a keyed integer hash of the position.

    For every position the map from key to key is a bijection (a Feistel network of MurmurHash3's finaliser), so
    different keys never meet at the same position.
    """
    words = jax.random.key_data(key)
    if words.shape != (2,):  # another generator than the default: its own way
        return jnp.vectorize(lambda i: jax.random.fold_in(key, i))(position)
    left, right = jnp.broadcast_to(words[0], position.shape), jnp.broadcast_to(words[1], position.shape)
    salt = (position.astype(jnp.uint32) + jnp.uint32(1)) * jnp.uint32(0x9E3779B9)
    for constant in (0x7F4A7C15, 0x94D049BB, 0xBF58476D, 0x2545F491):
        left, right = right, left + mix(right ^ (salt + jnp.uint32(constant)))
    return jax.random.wrap_key_data(jnp.stack([left, right], axis=-1), impl=jax.random.key_impl(key))


def mix(bits: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """The finaliser of MurmurHash3: every bit of the input flips every bit of the output half of the time."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)
