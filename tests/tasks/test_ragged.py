import jax
import numpy as np
import pytest

from metatower.core.errors import UserError
from metatower.tasks.episodes import Episodes
from metatower.tasks.ragged import Ragged


def ragged(**how):
    pool = np.random.default_rng(0).integers(1, 255, (12, 8, 4, 4), dtype=np.uint8)
    return Ragged(Episodes(pool, np.full(12, 8), ways=5, shots=3, queries=2), **how)


def test_every_size_is_as_likely_and_padding_is_empty():
    task = jax.jit(jax.vmap(ragged(ways=3).sample))(jax.random.split(jax.random.key(0), 900))
    ways = np.asarray(task.support.ways).sum(axis=1)
    counts = np.bincount(ways)
    assert list(np.flatnonzero(counts)) == [3, 4, 5]
    assert np.sum((counts[3:] - 300) ** 2 / 300) < 18  # 2 degrees of freedom: p about 1e-4
    weight = np.asarray(task.support.weight).reshape(900, 5, 3)
    shots = weight.sum(axis=2)[np.asarray(task.support.ways)].astype(int)
    assert list(np.flatnonzero(np.bincount(shots))) == [1, 2, 3]
    assert np.abs(np.bincount(shots)[1:] / len(shots) - 1 / 3).max() < 0.04
    for part in (task.support, task.query):
        np.testing.assert_array_equal(part.ways, np.arange(5) < ways[:, None])
        there = np.asarray(part.weight) > 0
        assert not np.asarray(part.x)[~there].any()
        assert (np.asarray(part.x)[there].reshape(-1, 16) > 0).all()
        assert np.take_along_axis(np.asarray(part.ways), np.asarray(part.y), 1)[there].all()
    np.testing.assert_array_equal(np.asarray(task.query.weight).sum(axis=1), 2 * ways)


def test_sizes_beyond_the_episodes_are_refused():
    with pytest.raises(UserError, match="from 2 to 5 ways and from 1 to 3 shots"):
        ragged(ways=6)
    with pytest.raises(UserError, match="from 2 to 5 ways and from 1 to 3 shots"):
        ragged(shots=4)
