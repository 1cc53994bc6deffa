"""The family of bandits: ranges within [0, 1] of the widths that were asked for."""

import jax
import numpy as np
import pytest

from metatower.envs import BanditFamily


def test_every_distribution_has_a_range_of_its_own_within_the_bounds():
    family = BanditFamily(3, (0.2, 0.4))
    bounds = jax.vmap(lambda key: family.sample(key).support.environment.bounds)(
        jax.random.split(jax.random.key(0), 500)
    )
    low, high = np.asarray(bounds).T
    assert low.min() >= 0
    assert high.max() <= 1 + 1e-6
    assert 0.2 <= (high - low).min() < 0.21
    assert 0.39 < (high - low).max() <= 0.4 + 1e-6
    assert low.min() < 0.02
    assert high.max() > 0.98


def test_its_bandits_pay_within_the_range_of_their_distribution():
    worlds = BanditFamily(3, (0.1, 0.1)).sample(jax.random.key(1))
    low, high = worlds.query.environment.bounds
    chances = jax.vmap(lambda key: worlds.support.sample(key).support.task)(jax.random.split(jax.random.key(2), 200))
    assert chances.shape == (200, 3)
    assert low <= chances.min() < chances.max() <= high


@pytest.mark.parametrize(("arms", "width"), [(0, (0.1, 0.2)), (2, (0.3, 0.2)), (2, (0.5, 1.1)), (2, (-0.1, 0.2))])
def test_widths_that_cannot_be_are_refused(arms, width):
    with pytest.raises(ValueError, match="BanditFamily: expected an arm and widths"):
        BanditFamily(arms, width)
