import numpy as np

from metatower.evaluation.acceptance import accepted, improvement


def test_only_what_is_surely_better_is_accepted():
    rng = np.random.default_rng(0)
    old = np.exp(rng.normal(size=50))
    noise = np.exp(0.2 * rng.normal(size=50))
    assert accepted(0.8 * old * noise, old)
    assert not accepted(1.0 * old * noise[::-1] / noise, old)
    assert not accepted(1.2 * old * noise, old)
    assert not accepted(np.where(np.arange(50) == 7, np.nan, 0.5 * old), old)  # a run that broke is not left out
    assert not accepted(np.array([0.1]), np.array([1.0]))  # one unit says nothing


def test_the_bound_is_one_sided():
    """Of differences with mean m and standard error s the bound at 95 % is m − 1.645 s, for many units."""
    rng = np.random.default_rng(1)
    logs = rng.normal(size=10_000)
    bound = improvement(np.exp(-logs), np.ones(10_000)).lo
    np.testing.assert_allclose(bound, logs.mean() - 1.645 * logs.std(ddof=1) / 100, atol=1e-4)
