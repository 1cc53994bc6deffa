import numpy as np
import pytest

from metatower.core.errors import UserError
from metatower.evaluation.statistics import Interval, gain, interval, paired


def test_the_interval_is_students():
    # by hand: mean 3, standard deviation sqrt(2.5), n = 5, t(0.975, 4) = 2.776445
    found = interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert found.n == 5
    assert found.mean == 3.0
    assert found.hi - found.mean == pytest.approx(2.776445 * np.sqrt(2.5 / 5), rel=1e-6)
    assert found.mean - found.lo == pytest.approx(found.hi - found.mean)


def test_the_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(1.0, 2.0, (4000, 6))
    found = [interval(draw) for draw in draws]
    assert np.mean([each.lo < 1.0 < each.hi for each in found]) == pytest.approx(0.95, abs=0.012)


def test_curves_get_one_interval_per_point():
    values = np.random.default_rng(1).normal(size=(7, 3))
    found = interval(values)
    for point in range(3):
        alone = interval(values[:, point])
        assert (found.mean[point], found.lo[point]) == pytest.approx((alone.mean, alone.lo))


def test_one_value_says_nothing_about_its_spread():
    found = interval(np.array([0.5]))
    assert (found.mean, found.lo, found.hi) == (0.5, -np.inf, np.inf)


def test_a_value_that_is_not_finite_is_not_left_out():
    assert np.isnan(interval(np.array([1.0, np.nan, 2.0])).mean)
    assert np.isnan(paired(np.array([1.0, np.inf]), np.array([1.0, np.inf])).mean)


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(2)
    shared = rng.normal(0, 10, 50)
    a, b = shared + rng.normal(0.5, 0.1, 50), shared
    assert paired(a, b).lo > 0.4
    assert interval(a).lo < interval(b).hi  # side by side, nothing could be told


@pytest.mark.parametrize("values", [np.array([]), np.array(1.0)])
def test_no_values_are_refused(values):
    with pytest.raises(UserError, match="at least one value"):
        interval(values)


def test_other_units_are_refused():
    with pytest.raises(UserError, match="same units"):
        paired(np.zeros(3), np.zeros(4))


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_is_a_share(level):
    with pytest.raises(UserError, match="between 0 and 1"):
        interval(np.zeros(3), level)


@pytest.mark.parametrize(
    ("metric", "lo", "hi", "is_gain"),
    [
        ("accuracy", 0.1, 0.2, True),
        ("accuracy", -0.2, -0.1, False),
        ("loss", -0.2, -0.1, True),
        ("loss", 0.1, 0.2, False),
        ("loss", -0.1, 0.1, False),
        ("loss", -0.1, 0.0, False),
        ("loss", np.nan, np.nan, False),
    ],
)
def test_a_gain_is_an_interval_wholly_on_the_better_side(metric, lo, hi, is_gain):
    assert gain((lo, hi), metric) is is_gain
    assert gain(Interval((lo + hi) / 2, lo, hi, 3), metric) is is_gain
