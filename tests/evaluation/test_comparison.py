import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import Bowl, Bowls, number

from metatower import Descend, Learner, Task, Tasks, lift, sgd
from metatower.core import pick, put
from metatower.evaluation import comparison
from metatower.evaluation.comparison import BEST, Measured, Sizes
from metatower.training.progress import Silent

SIZES = Sizes(steps=3, episodes=4, far_episodes=2, judged=2, chunk=2)


class Bowlfuls(Tasks):
    """A distribution always has one bowl, whose curvature is its own."""

    lowest: jax.Array

    def sample(self, key):
        own = self.lowest + jax.random.uniform(key)
        return Task(Bowls(own, own), Bowls(own, own))


def trainer(steps: int = 3) -> Descend:
    """Storey 0 takes no step: a meta-step is w <- w - 0.1 a w, and the loss after k of them a (1 - a/10)^2k / 2."""
    return lift(Descend(Bowl(number(1.0)), sgd(0.0), steps=0), sgd(0.1), steps=steps)


class Fixed(Learner):
    """No steps to choose: knows the answer after its one look."""

    def start(self, *, key):
        return jnp.zeros(())

    def step(self, state, data, *, key):
        return jnp.ones(())

    def loss(self, state, data, *, key):
        return jnp.where(state > 0, 0.5, 100.0), {}

    @property
    def height(self):
        return 1


def measured(learner):
    return comparison.measure(learner, Bowlfuls(number(1.0)), SIZES, seed=0, show=Silent(), title="")


@pytest.mark.usefixtures("quick_compile")
def test_runs_are_measured_as_known_by_hand():
    found = measured(trainer())
    losses = found.curves["loss"]
    assert losses.shape == (4, 4)
    curvature = 2 * losses[:, 0]
    assert np.all((curvature > 1) & (curvature < 2))
    steps = np.arange(4)
    np.testing.assert_allclose(losses, losses[:, :1] * (1 - curvature[:, None] / 10) ** (2 * steps), rtol=1e-5)
    np.testing.assert_allclose(found.far["loss"], losses[:2, 0] * (1 - curvature[:2] / 10) ** 60, rtol=1e-4)


@pytest.mark.usefixtures("quick_compile")
def test_what_has_no_meaning_is_left_out():
    none, longer, fixed = measured(trainer(0)), measured(trainer(6)), measured(Fixed())
    whole = measured(trainer())
    np.testing.assert_array_equal(none.ends["loss"], whole.curves["loss"][:, 0])  # the same distributions
    assert np.all(longer.ends["loss"] < whole.ends["loss"])
    np.testing.assert_array_equal(fixed.ends["loss"], 0.5)
    for each in (none, longer, fixed):
        assert each.far is None
        assert not each.whole
        assert [row.metric for row in comparison.rows("x", each, whole.ends["loss"])] == ["loss@K"]
    metrics = [row.metric for row in comparison.rows("x", whole, whole.ends["loss"])]
    assert metrics == ["loss@0", "loss@K", "loss@10K", "area", "speed-up"]


def test_areas_and_speed_ups_are_those_of_the_curves():
    curve = np.array([[[8.0, 4.0, 2.0], [8.0, 2.0, 1.0]]])  # one seed, two distributions, K = 2
    rows = comparison.rows("x", Measured({"loss": curve}, None), np.array([[4.0, 2.0]]))
    found = {row.metric: row.mean for row in rows}
    # by trapezoids: (12 + 6) / 4 and (10 + 3) / 4; both cross at the first of two steps
    assert found == {"loss@0": 8.0, "loss@K": 1.5, "area": (4.5 + 3.25) / 2, "speed-up": 2.0}


def test_where_accuracy_decides_more_is_better():
    accuracy = np.array([[[0.2, 0.4, 0.6], [0.2, 0.2, 0.3]]])  # one seed, two distributions, K = 2
    curves = {"loss": 2 - accuracy, "accuracy": accuracy}
    found = Measured(curves, {name: 0 * each[..., 0] for name, each in curves.items()})
    rows = {r.metric: r.mean for r in comparison.rows("x", found, np.array([[0.4, 0.4]]), "accuracy")}
    wanted = {"accuracy@0": 0.2, "accuracy@K": 0.45, "loss@K": 1.55, "accuracy@10K": 0.0, "area": (0.4 + 0.225) / 2}
    assert rows == pytest.approx({**wanted, "speed-up": 1.0})  # the first gets there at once, the second never
    sure = Measured({"loss": np.full((1, 2, 1), 9.0), "accuracy": np.full((1, 2, 1), 0.5)}, None)
    assert comparison.best_of({"found": found, "sure": sure}) == "found"
    assert comparison.best_of({"found": found, "sure": sure}, "accuracy") == "sure"
    rows = {r.metric: r.difference for r in comparison.differences("found", found, {"sure": sure}, "sure")}
    assert rows == pytest.approx({"log-loss": np.log(1.4 * 1.7 / 81) / 2, "accuracy": -0.05})


def test_differences_are_of_logarithms_and_in_pairs():
    rng = np.random.default_rng(0)
    hard = np.exp(rng.normal(0, 3, (2, 30, 1)))  # some distributions are a thousand times harder
    ours, good, bad = (
        Measured({"loss": hard * factor * np.exp(rng.normal(0, 0.05, hard.shape))}, None) for factor in (0.7, 1.0, 2.0)
    )
    assert comparison.best_of({"bad": bad, "good": good}) == "good"
    rows = comparison.differences("ours", ours, {"bad": bad, "good": good}, "good")
    assert [row.against for row in rows] == ["bad", "good", BEST]
    assert rows[2].difference == rows[1].difference == pytest.approx(np.log(0.7), abs=0.03)
    assert rows[0].difference == pytest.approx(np.log(0.35), abs=0.03)
    assert all(row.gain for row in rows)
    worse = comparison.differences("bad", bad, {"good": good}, "good")[0]
    assert not worse.gain


def test_a_baseline_that_diverged_is_never_the_best():
    one, lost = Measured({"loss": np.ones((1, 3, 1))}, None), Measured({"loss": np.full((1, 3, 1), np.nan)}, None)
    assert comparison.best_of({"lost": lost, "one": one}) == "one"


def test_seeds_are_stacked():
    one = Measured({"loss": np.ones((4, 3))}, {"loss": np.ones(2)})
    both = comparison.together([one, one])
    assert both.curves["loss"].shape == (2, 4, 3)
    assert both.far["loss"].shape == (2, 2)
    assert comparison.together([one, Measured(one.curves, None)]).far is None


def test_shuffled_keeps_sizes_and_loses_places():
    start = lift(Descend(Bowl(jnp.zeros(6)), sgd(jnp.zeros(5))), sgd(0.1))
    learned = put(start, [x + jnp.arange(1.0, 1 + x.size) for x in pick(start)])
    found = comparison.shuffled(start, learned, jax.random.key(0))
    for old, new in zip(pick(learned), pick(found), strict=True):
        assert sorted(old.tolist()) == sorted(new.tolist())
        assert not np.array_equal(old, new)
    rates = comparison.shuffled(start, learned, jax.random.key(0), lambda t: t.objective.learner.rule)
    np.testing.assert_array_equal(rates.objective.learner.objective.w, learned.objective.learner.objective.w)
    assert not np.array_equal(pick(rates)[1], pick(learned)[1])
