import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower import Task
from metatower.tasks.binned import Binned, CorruptedFamily, CorruptedSources, sample_from
from metatower.tasks.functions import FunctionFamily

KEYS = jax.random.split(jax.random.key(0), 400)


class Numbers(Binned):
    """Every task of a bin is the bin's number."""

    @property
    def bins(self):
        return 4

    def sample_from(self, which, key):
        return Task(which, which)


def family(judges: int = 1, shares=(0.5,), bins: int = 4) -> CorruptedFamily:
    return CorruptedFamily(FunctionFamily(("sinusoid",), 3, 3, noise=(0.0, 0.0), pools=3, judges=judges), shares, bins)


def test_all_bins_are_drawn_alike_and_one_can_be_asked_for():
    drawn = np.asarray(jax.vmap(Numbers().sample)(KEYS).support)
    assert np.abs(np.bincount(drawn, minlength=4) / len(KEYS) - 0.25).max() < 0.08
    assert sample_from(Numbers(), jnp.array(3), KEYS[0]).support == 3


def test_a_distribution_without_bins_is_as_if_all_were_alike():
    world = FunctionFamily().sample(jax.random.key(1)).support
    for which in (0, 5):
        task, plain = sample_from(world, jnp.array(which), KEYS[0]), world.sample(KEYS[0])
        np.testing.assert_array_equal(task.support.x, plain.support.x)


def test_so_many_sources_are_corrupted_and_the_judge_sees_none():
    for share, wanted in ((0.0, [0, 0, 0, 0]), (0.5, [0, 0, 1, 1]), (0.6, [0, 0.4, 1, 1])):
        pair = jax.vmap(family(shares=(share,)).sample)(KEYS)
        np.testing.assert_allclose(np.sort(pair.support.chance, axis=1), np.tile(wanted, (len(KEYS), 1)), atol=1e-6)
        assert not np.any(pair.query.chance)
        # which ones they are differs
        assert np.abs(np.mean(pair.support.chance, axis=0) - share).max() < 0.1
    drawn = jax.vmap(family(shares=(0.0, 0.5)).sample)(KEYS).support.chance.sum(axis=1)
    assert set(np.unique(drawn)) == {0.0, 2.0}


def test_a_corrupted_task_has_the_support_of_another_distribution_and_its_own_query():
    pair = family().sample(jax.random.key(3))
    sources, which = pair.support, int(jnp.argmax(pair.support.chance))
    clean = CorruptedSources(sources.tasks, sources.others, jnp.zeros(4))
    wrong, right = (jax.vmap(lambda k, s=s: s.sample_from(jnp.array(which), k))(KEYS) for s in (sources, clean))
    np.testing.assert_array_equal(wrong.query.y, right.query.y)
    assert not np.any(np.all(wrong.support.y == right.support.y, axis=(1, 2)))
    # it lies in the range of the other distribution, not of this one
    low, high = (float(sources.others.offset + s * 1.2 * sources.others.amplitude) for s in (-1, 1))
    assert low <= float(wrong.support.y.min())
    assert float(wrong.support.y.max()) <= high


def test_the_three_pools_share_no_task():
    """Tasks to learn from, probes and tasks to be judged on have phases of their own."""
    found = {}
    for judges in (1, 2):
        pair = family(judges).sample(jax.random.key(4))
        found[0], found[judges] = (
            np.asarray(jax.vmap(lambda k, s=s: _phase(s.tasks, k))(KEYS)) for s in (pair.support, pair.query)
        )
    for pool, phases in found.items():
        assert set(np.floor(24 * phases).astype(int) % 3) == {pool}
        assert len(set(np.floor(24 * phases).astype(int))) == 8
    same = family(1).sample(jax.random.key(4)), family(2).sample(jax.random.key(4))
    np.testing.assert_array_equal(same[0].query.tasks.frequency, same[1].query.tasks.frequency)


def _phase(functions, key):
    """The phase of a noiseless sinusoid, in cycles, from three of its points near each other."""
    from metatower.tasks.chance import integer, uniforms

    own, *_ = uniforms(key, (4,), (6, 1), (3, 1))
    phase = (functions.pools * integer(own[2], 8) + functions.pool + own[3]) / (8 * functions.pools)
    task = functions.sample(key)  # the formula is the one that the targets follow
    amplitude, frequency = functions.amplitude * (0.8 + 0.4 * own[0]), functions.frequency * (0.95 + 0.1 * own[1])
    y = functions.offset + amplitude * jnp.sin(frequency * (task.query.x - functions.shift) + 2 * jnp.pi * phase)
    return jnp.where(jnp.allclose(y, task.query.y, atol=1e-3), phase, jnp.nan)


def test_misuse_is_answered():
    with pytest.raises(ValueError, match="shares from 0 to 1"):
        family(shares=(1.5,))
    with pytest.raises(ValueError, match="at least one bin"):
        family(bins=0)
    with pytest.raises(ValueError, match="judges from 1 to pools - 1"):
        FunctionFamily(pools=2, judges=2)


def test_a_source_that_mislabels_shuffles_the_targets_of_its_own_support():
    pair = CorruptedFamily(FunctionFamily(("sinusoid",), 5, 3, noise=(0.0, 0.0)), (0.5,), 4, labels=True).sample(
        KEYS[0]
    )
    sources, which = pair.support, jnp.argmax(pair.support.chance)
    clean = CorruptedSources(sources.tasks, None, jnp.zeros(4))
    wrong, right = (jax.vmap(lambda k, s=s: s.sample_from(which, k))(KEYS) for s in (sources, clean))
    for one, other in ((wrong.query.y, right.query.y), (wrong.support.x, right.support.x)):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(np.sort(wrong.support.y, axis=1), np.sort(right.support.y, axis=1))
    same = np.mean(np.asarray(wrong.support.y == right.support.y))
    assert abs(same - 1 / 5) < 0.05
    assert not np.any(pair.query.chance)
