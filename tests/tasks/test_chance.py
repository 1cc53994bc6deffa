import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.tasks.chance import distinct, integer, ranks, settled, shuffled, uniforms

MANY = jax.vmap(lambda key: uniforms(key, (6,), (2, 3)))


@pytest.fixture(scope="module")
def numbers():
    return [np.asarray(x) for x in jax.jit(MANY)(jax.random.split(jax.random.key(0), 20000))]


def test_numbers_are_uniform_and_uncorrelated(numbers):
    flat = np.concatenate([numbers[0], numbers[1].reshape(-1, 6)], axis=1)
    assert flat.min() >= 0
    assert flat.max() < 1
    for column in flat.T:
        counts = np.histogram(column, 50, (0, 1))[0]
        chi = np.sum((counts - 400) ** 2 / 400)
        assert chi < 95  # 49 degrees of freedom: p below 1e-4
    correlation = np.corrcoef(np.concatenate([flat[:-1], flat[1:]], axis=1).T)
    assert np.abs(correlation - np.eye(24)).max() < 0.035


def test_bits_of_neighbouring_keys_differ():
    keys = [jax.random.wrap_key_data(jnp.array([0, i], jnp.uint32)) for i in range(500)]
    first = np.array([uniforms(key, (2,))[0] for key in keys])
    assert len(np.unique(first)) == first.size
    assert abs(first.mean() - 0.5) < 0.04
    assert abs(np.corrcoef(first[:-1, 0], first[1:, 0])[0, 1]) < 0.15


def test_same_key_same_numbers_other_key_others():
    one, again, other = (uniforms(jax.random.key(k), (8,))[0] for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.any(np.asarray(one) == np.asarray(other))


def test_other_generators_are_served_too():
    (numbers,) = uniforms(jax.random.key(3, impl="rbg"), (1000,))
    assert abs(float(jnp.mean(numbers)) - 0.5) < 0.05


@pytest.mark.parametrize("shape", [(), (0,), (3,), (8,), (5, 7, 2)])
def test_settled_numbers_are_the_same_to_the_last_bit(shape):
    x = jax.random.normal(jax.random.key(0), (4, *shape)) * 10.0 ** jax.random.randint(
        jax.random.key(1), (4, *shape), -30, 30
    )
    np.testing.assert_array_equal(jax.jit(jax.vmap(settled))(x), x)


def test_integer_never_reaches_its_bound():
    almost = jnp.float32(1 - 2**-24)
    assert int(integer(almost, 7)) == 6
    assert int(integer(almost, 1 << 24)) == (1 << 24) - 1


def test_ranks_are_an_order_even_of_equals():
    assert ranks(jnp.array([0.3, 0.1, 0.2])).tolist() == [2, 0, 1]
    assert ranks(jnp.array([0.5, 0.5, 0.1])).tolist() == [1, 2, 0]


@pytest.mark.parametrize("how", ["distinct", "shuffled"])
def test_choices_are_different_and_every_order_is_as_likely(how):
    def choose(key):
        if how == "distinct":
            return distinct(uniforms(key, (2, 3))[0], 4)
        return shuffled(uniforms(key, (9,))[0], 4, 3)

    chosen = np.asarray(jax.jit(jax.vmap(choose))(jax.random.split(jax.random.key(5), 24000)))
    assert all(len(set(row)) == 3 for row in chosen[:100].tolist())
    orders, counts = np.unique(chosen, axis=0, return_counts=True)
    assert len(orders) == 24
    assert np.sum((counts - 1000) ** 2 / 1000) < 60  # 23 degrees of freedom: p about 4e-5


def test_distinct_takes_ragged_bounds():
    below = jnp.array([3, 500, 70000])
    chosen = np.asarray(distinct(uniforms(jax.random.key(0), (3, 2, 3))[0], below))
    assert sorted(chosen[0]) == [0, 1, 2]
    assert (chosen < np.asarray(below)[:, None]).all()
    assert chosen[2].max() > 500
