import numpy as np
import pytest

from metatower.core.errors import UserError
from metatower.evaluation.statistics import Interval, gain, hierarchical, interval, middle_mean, paired


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


def test_of_one_level_the_bootstrap_is_students():
    rng = np.random.default_rng(3)
    for n in (6, 30):
        values = rng.normal(1.0, 2.0, n)
        students, ours = interval(values), hierarchical(values, resamples=40_000)
        assert ours.mean == pytest.approx(students.mean)
        assert ours.hi - ours.lo == pytest.approx(students.hi - students.lo, rel=0.08)
        assert hierarchical(values[None]) == hierarchical(values)  # one seed: over its distributions
        assert hierarchical(values[:, None]) == hierarchical(values)


def test_what_all_of_a_seed_share_is_not_averaged_away():
    """Two levels, y = seed + distribution: the mean of 6 seeds of 15 has variance 1/6 + 1/90, known by hand."""
    rng = np.random.default_rng(4)
    draws = rng.normal(0, 1.0, (400, 6, 1)) + rng.normal(0, 1.0, (400, 6, 15))
    found = [hierarchical(draw, resamples=2000, seed=i) for i, draw in enumerate(draws)]
    covered = np.mean([each.lo < 0 < each.hi for each in found])
    assert 0.9 <= covered <= 0.99
    width = np.mean([(each.hi - each.lo) / 2 for each in found])
    # with the t quantile of five degrees of freedom
    assert width == pytest.approx(2.571 * np.sqrt(1 / 6 + 1 / 90), rel=0.15)
    # as if all 90 were independent: far too narrow
    pooled = [interval(draw.ravel()) for draw in draws]
    assert np.mean([each.lo < 0 < each.hi for each in pooled]) < 0.75


def test_units_are_nested_each_seed_has_distributions_of_its_own():
    # the two seeds agree on the mean of their distributions: nothing but the draws within them varies
    values = np.array([[0.0, 2.0], [2.0, 0.0]])
    found = hierarchical(values, resamples=4000)
    assert (found.lo, found.hi, found.n) == (0.0, 2.0, 4)
    # were the same columns drawn for both, the mean would always be 1


def test_three_levels_and_values_that_say_nothing():
    values = np.random.default_rng(5).normal(size=(3, 4, 5))
    assert hierarchical(values).n == 60
    assert hierarchical(values) == hierarchical(values)
    alone = hierarchical(np.array([[0.5]]))
    assert (alone.lo, alone.hi) == (-np.inf, np.inf)
    assert np.isnan(hierarchical(np.array([1.0, np.nan])).lo)
    with pytest.raises(UserError, match="at least one value"):
        hierarchical(np.zeros((0, 3)))


def test_the_middle_mean_ignores_the_outer_quarters():
    assert middle_mean(np.array([5.0, 1.0, 100.0, 3.0, 0.0, 4.0, 2.0, 6.0])) == 3.5
    assert middle_mean(np.array([7.0])) == 7.0
