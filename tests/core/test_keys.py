import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.core.keys import fork, fork_at


def test_fork_at_gives_the_keys_of_fork_however_many_there_are():
    key = jax.random.key(3)
    assert jnp.array_equal(jax.random.key_data(fork(key, 5)[2]), jax.random.key_data(fork(key, 9)[2]))
    assert jnp.array_equal(jax.random.key_data(fork(key, 5)[2]), jax.random.key_data(fork_at(key, jnp.array(2))))


def test_keys_do_not_meet():
    deep = jax.vmap(lambda key: fork(key, 64))(jax.vmap(lambda seed: jax.random.key(seed))(jnp.arange(256)))
    words = np.asarray(jax.random.key_data(deep)).reshape(-1, 2)
    assert len(np.unique(words, axis=0)) == len(words)


def test_bits_of_forked_keys_are_fair_and_forked_draws_uncorrelated():
    keys = fork(jax.random.key(0), 4096)
    words = np.asarray(jax.random.key_data(keys))
    bits = (words[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(4096)
    draws = np.asarray(jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys))
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 5 / np.sqrt(4096)
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 5 / np.sqrt(4096)


@pytest.mark.parametrize("number", [1, 3])
def test_another_generator_is_forked_in_its_own_way(number):
    keys = fork(jax.random.key(0, impl="rbg"), number)
    assert keys.shape == (number,)
    assert jax.random.key_impl(keys) == jax.random.key_impl(jax.random.key(0, impl="rbg"))
