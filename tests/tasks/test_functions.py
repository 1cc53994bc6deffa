import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.tasks.functions import WAVES, FunctionFamily, Sinusoids
from metatower.tasks.pooled import Pooled


def test_sinusoids_are_those_of_the_paper():
    tasks = jax.vmap(Sinusoids(shots=20, queries=20).sample)(jax.random.split(jax.random.key(0), 500))
    x, y = np.asarray(tasks.query.x)[..., 0], np.asarray(tasks.query.y)[..., 0]
    assert x.min() >= -5
    assert x.max() <= 5
    assert 4.5 < np.abs(y).max() <= 5
    # least squares on sin x and cos x leaves nothing, and gives an amplitude and a phase within the paper's bounds
    for points, values in zip(x[:50], y[:50], strict=True):
        design = np.stack([np.sin(points), np.cos(points)], axis=1)
        (a, b), *_ = np.linalg.lstsq(design, values, rcond=None)
        assert np.allclose(design @ (a, b), values, atol=1e-3)
        assert 0.1 - 1e-3 <= np.hypot(a, b) <= 5 + 1e-3
        assert -1e-3 <= np.arctan2(-b, a) % (2 * np.pi) <= np.pi + 1e-3


def test_waves_have_height_one():
    x = jnp.linspace(-5, 5, 400)
    for name, wave in WAVES.items():
        peak = max(float(jnp.abs(wave(x, jnp.array(f), jnp.array(p))).max()) for f in (0.7, 1.5) for p in (0.2, 0.6))
        assert 0.8 < peak <= 1 + 1e-5, name


def test_the_two_pools_of_a_distribution_share_no_task():
    family = FunctionFamily(("sinusoid",), shots=5, queries=40, noise=(0.0, 0.0))
    pair = family.sample(jax.random.key(1))
    assert pair.support.frequency == pair.query.frequency

    def phases(tasks):
        task = jax.vmap(tasks.sample)(jax.random.split(jax.random.key(2), 200))
        x, y = np.asarray(task.query.x)[..., 0], np.asarray(task.query.y)[..., 0]
        found = []
        for points, values in zip(x, y, strict=True):
            best = None
            for f in np.linspace(0.95, 1.05, 41) * float(tasks.frequency):
                arg = f * (points - float(tasks.shift))
                design = np.stack([np.sin(arg), np.cos(arg), np.ones_like(arg)], axis=1)
                fit, *_ = np.linalg.lstsq(design, values, rcond=None)
                error = np.abs(design @ fit - values).max()
                if best is None or error < best[0]:
                    best = (error, (np.arctan2(fit[1], fit[0]) / (2 * np.pi)) % 1)
            found.append(best[1])
        return np.floor(np.array(found) * 16).astype(int) % 2

    # slices of the phase circle are dealt to the pools in turn; fits near an edge may fall on the other side
    assert phases(pair.support).mean() < 0.1
    assert phases(pair.query).mean() > 0.9


def test_support_is_noisy_and_query_is_not():
    family = FunctionFamily(("square",), shots=200, queries=200, noise=(0.5, 0.5), offset=(0.0, 0.0))
    tasks = family.sample(jax.random.key(0)).support
    task = tasks.sample(jax.random.key(1))
    level = float(tasks.amplitude) * 1.2
    assert np.abs(np.asarray(task.query.y)).max() <= level + 1e-5
    assert np.abs(np.asarray(task.support.y)).max() > level


def test_distributions_differ_and_pooling_mixes_them():
    family = FunctionFamily()
    drawn = jax.vmap(lambda key: family.sample(key).support.amplitude)(jax.random.split(jax.random.key(0), 100))
    assert drawn.min() >= 0.5
    assert drawn.max() <= 3.0
    assert drawn.std() > 0.5
    tasks = jax.vmap(Pooled(family).sample)(jax.random.split(jax.random.key(0), 100))
    assert float(jnp.abs(tasks.query.y).max(axis=(1, 2)).std()) > 0.3


@pytest.mark.parametrize(
    ("options", "message"), [({"kinds": ("spiral",)}, "spiral"), ({"kinds": ()}, "kinds"), ({"shots": 0}, "shot")]
)
def test_wrong_families_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FunctionFamily(**options)
