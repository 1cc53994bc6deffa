"""The monitor on runs whose exponent and gradients are known."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import Bowl, Bowls, number

from metatower import Descend, Learner, Positive, Task, Tasks, adam, lift, sgd
from metatower.core import Expected, Unrolled
from metatower.core.errors import UserError
from metatower.evaluation import gradient_health, interval, plots, recommend
from metatower.evaluation.gradient_health import Health, Row, Thresholds, _averaged, estimators, lyapunov
from metatower.gradients import NRES, Clipped, Evolution, FirstOrder, Relative
from metatower.learners import NearestNeighbour, maml
from metatower.nets import MLP, Supervised, squared_error
from metatower.tasks.functions import Sinusoids

pytestmark = pytest.mark.usefixtures("quick_compile")


class Logistic(Learner):
    """x ← r x (1 − x) from a random x, judged by x: chaotic with exponent ln 2 at r = 4."""

    r: jax.Array
    steps: int = 300

    def start(self, *, key):
        return 0.1 + 0.8 * jax.random.uniform(key) + 0 * self.r

    def step(self, state, data, *, key):
        return self.r * state * (1 - state)

    def loss(self, state, data, *, key):
        return state, {}


class Nothing(Tasks):
    def sample(self, key):
        return Task(jnp.zeros(()), jnp.zeros(()))


def exponents(learner, tasks=None, draws=20):
    def one(key):
        run = next(iter(Expected(learner).runs(Nothing() if tasks is None else tasks, key=key)))
        return lyapunov(run, key=key)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), draws)))


@pytest.mark.usefixtures("x64")
def test_exponents_that_are_known():
    chaos = exponents(Logistic(number(4.0)))
    np.testing.assert_allclose(chaos.mean(), math.log(2), atol=0.02)
    np.testing.assert_allclose(exponents(Logistic(number(2.5))).mean(), math.log(0.5), atol=0.02)  # |2 − r| at its rest
    bowl = exponents(maml(Bowl(number(0.9)), number(0.4), steps=6), Bowls(number(0.7), number(1.3)), 2)
    np.testing.assert_allclose(bowl, math.log(1 - 0.4 * 0.7), rtol=1e-9)
    wild = exponents(maml(Bowl(number(0.9)), number(4.0), steps=6), Bowls(number(0.7), number(1.3)), 2)
    np.testing.assert_allclose(wild, math.log(4.0 * 0.7 - 1), rtol=1e-9)
    still = exponents(Descend(Bowl(number(0.9)), adam(0.0), steps=20), Bowls(number(0.7), number(1.3)), 2)
    assert (still > -0.1).all(), "weights that stay keep their difference"


@pytest.mark.usefixtures("x64")
def test_in_a_bowl_by_hand():
    """Every key gives the same exact gradient; first order is (1 − r a)⁻² of it in w, and differs in the rate."""
    a, b, w, r = 0.7, 1.3, 0.9, 0.4
    tower = lift(maml(Bowl(number(w)), number(r), steps=2), sgd(0.1))
    how = {"exact": Unrolled(), "first order": FirstOrder(), "evolution": Evolution(pairs=4)}
    health = gradient_health(tower, Bowls(number(a), number(b)), how, draws=5)
    exact, first, smooth = health.rows
    end, middle = (1 - r * a) ** 2 * w, (1 - r * a) * w
    g = np.array([b * end * (1 - r * a) ** 2, -2 * b * end * (1 - r * a) * a * w])
    f = np.array([b * end, -b * end * (a * w + a * middle)])
    np.testing.assert_allclose(exact.norms, np.linalg.norm(g), rtol=1e-12)
    np.testing.assert_allclose(first.norms, np.linalg.norm(f), rtol=1e-12)
    np.testing.assert_allclose(first.cosine.mean, g @ f / np.linalg.norm(g) / np.linalg.norm(f), rtol=1e-12)
    np.testing.assert_allclose(health.cosines, health.cosines.T, rtol=1e-12)
    assert exact.signal_to_noise > 1e6
    assert smooth.signal_to_noise < 10
    assert (exact.finite, exact.cosine.mean) == (1, pytest.approx(1))
    assert (health.size, health.steps) == (2, 2)
    np.testing.assert_allclose(health.growth, (1 - r * a) ** 2, rtol=1e-6)


def test_signal_to_noise_is_that_of_one_gradient():
    """A gradient of mean 3 and deviation 2 in one number."""

    class Noisy(Logistic):
        def loss(self, state, data, *, key):
            return self.r * (3 + 2 * jax.random.normal(key)), {}

    health = gradient_health(lift(Noisy(number(1.0), 2), sgd(0.1)), Nothing(), {"exact": Unrolled()}, draws=4000)
    np.testing.assert_allclose(health.rows[0].signal_to_noise, 1.5, rtol=0.1)


def test_chaos_is_told_apart_and_evolution_recommended():
    how = {"exact": Unrolled(), "evolution": Evolution(pairs=16, sigma=0.04), "noise reuse": NRES(16, 0.04, unroll=25)}
    tower = lift(Logistic(number(3.7), 100), sgd(0.1), batch=2)
    health = gradient_health(tower, Nothing(), how, draws=8)
    assert health.growth > 1e6
    advice = recommend(health)
    assert advice.estimator == "NRES"
    assert "chaotic" in advice.reason
    assert 0 < advice.limit < 1e3 < health.rows[0].norms.max()
    assert "enlarge a difference" in str(health)
    assert str(advice) in str(health)
    overflown = gradient_health(lift(Logistic(number(3.7), 2000), sgd(0.1)), Nothing(), {"exact": Unrolled()}, draws=4)
    assert overflown.rows[0].finite < 1
    assert recommend(overflown).reason.startswith("The exact gradient is not finite")
    assert plots.save(plots.gradient_health(overflown), "svg").startswith(b"<?xml")


def test_a_trainer_from_the_readme_with_the_default_estimators():
    objective = Supervised(MLP((1, 8, 1), key=jax.random.key(0)), squared_error)
    tower = lift(maml(objective, Positive(0.01), steps=4), adam(1e-3), batch=4)
    health = gradient_health(tower, Sinusoids(), draws=4)
    assert [row.name for row in health.rows] == ["exact", "first order", "truncated", "evolution"]
    assert str(health) == str(gradient_health(tower, Sinusoids(), draws=4))
    moved = gradient_health(tower, Sinusoids(), draws=4, state=tower.step(tower.start(key=KEY), Sinusoids(), key=KEY))
    assert moved.rows[0].norms[0] != health.rows[0].norms[0]
    picture = plots.save(plots.gradient_health(health), "png")
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 5000


KEY = jax.random.key(5)


def row(name, cosine=0.5, snr=1.0, finite=1.0):
    return Row(name, np.full(4, 2.0), snr, interval(np.full(4, cosine)), finite)


def health(*rows, exponent=0.0, steps=10, size=100):
    return Health(rows, np.eye(len(rows)), np.array([exponent]), steps, size)


def test_means_of_gradients_lose_their_noise_and_keep_their_bias():
    """Signal 1 and noise 2 in 4,000 numbers: by hand; another direction of cosine 0.6 stays below that."""
    random, size, draws, noise = np.random.default_rng(0), 4000, 64, 2.0
    signal, other = np.zeros(size), np.zeros(size)
    signal[0], other[:2] = 1, (0.6, 0.8)
    found = signal + noise / np.sqrt(size) * random.normal(size=(draws, size))
    biased = other + noise / np.sqrt(size) * random.normal(size=(draws, size))
    count = np.arange(1, draws // 2 + 1)
    expected = 1 / np.sqrt((1 + noise**2 / count) * (1 + noise**2 / (draws // 2)))
    averaged = _averaged(found, found)
    np.testing.assert_allclose(averaged.mean, expected, atol=0.02)
    np.testing.assert_allclose(_averaged(biased, found).mean, 0.6 * expected, atol=0.03)
    assert (averaged.lo < averaged.mean).all()
    assert (averaged.mean < averaged.hi).all()


def test_its_own_estimator_is_kept_where_it_has_most_signal():
    rows = row("exact"), row("own (Clipped)", 0.7, snr=1.5), row("evolution", snr=0.1)
    advice = recommend(health(*rows))
    assert advice.estimator == "Clipped"
    assert "1.5 (own (Clipped)), 1 (exact), 0.1 (evolution). Its cosine with the exact gradient is 0.70" in str(advice)
    weak = (rows[0], row("own (Clipped)", 0.7, snr=0.9), rows[2])
    assert recommend(health(*weak)).estimator == "Unrolled"
    assert recommend(health(rows[0], row("own (Clipped)", snr=1.5, finite=0.5), rows[2])).estimator == "Unrolled"
    blind = row("own (ScoreFunction)", 1.0, snr=0.2), row("evolution", snr=0.4)
    assert recommend(health(*blind)).estimator == "Evolution"
    assert recommend(health(row("own (Evolution)", snr=0.5), row("noise reuse", snr=0.4))).estimator == "Evolution"


def test_estimators_that_fit():
    learner = Logistic(number(2.0), 10)
    assert list(estimators(lift(learner, sgd(0.1)))) == ["exact", "truncated", "evolution"]
    assert list(estimators(lift(Logistic(number(2.0), 1), sgd(0.1)))) == ["exact", "evolution"]
    blind = estimators(lift(learner, sgd(0.1), gradient=Evolution(pairs=4)))
    assert list(blind) == ["own (Evolution)", "noise reuse"]
    found = gradient_health(lift(learner, sgd(0.1), gradient=Evolution(pairs=4)), Nothing(), draws=3)
    assert [each.finite for each in found.rows] == [1, 1]
    own = estimators(lift(maml(Bowl(number(0.9)), 0.1), sgd(0.1), gradient=Clipped(1.0, Relative())))
    assert list(own) == ["exact", "own (Clipped of Relative)", "first order", "evolution"]


CASES = {
    "Unrolled": health(row("exact"), row("first order"), row("truncated"), row("evolution")),
    "FirstOrder": health(row("exact"), row("first order", 0.99), row("truncated", 0.99)),
    "Truncated": health(row("exact"), row("first order"), row("truncated", 0.99)),
    "ForwardMode": health(row("exact"), row("first order"), steps=100, size=3),
    "Evolution": health(row("exact", snr=0.1), row("first order", 0.99), row("evolution"), exponent=1.0),
    "NRES": health(row("exact", finite=0.5), row("first order", 0.99), steps=100),
}


@pytest.mark.parametrize("name", CASES)
def test_every_recommendation_has_its_case(name):
    advice = recommend(CASES[name])
    assert advice.estimator == name
    assert advice.limit == 20


def test_chaos_with_a_good_exact_gradient_keeps_it_and_thresholds_count():
    chaotic = health(row("exact", snr=2.0), row("evolution"), exponent=1.0)
    assert recommend(chaotic).estimator == "Unrolled"
    assert recommend(CASES["FirstOrder"], Thresholds(agreement=0.995)).estimator == "Unrolled"
    unknown = dataclasses.replace(CASES["Unrolled"], exponents=None)
    assert "not to be measured" in str(unknown)
    assert unknown.growth == 1


def test_runs_that_diverge_are_not_blamed_on_the_estimator():
    """Descent in a bowl by steps so long that it overflows."""
    tower = lift(maml(Bowl(number(0.9)), number(1e10), steps=30), sgd(0.1))
    found = gradient_health(tower, Bowls(number(0.7), number(1.3)), {"exact": Unrolled()}, draws=2)
    assert found.diverged == 1
    assert recommend(found).estimator == "none"
    assert "100 % of the inner runs are not finite: shorten" in str(found)
    assert "Limit" not in str(found)


def test_misuse_is_answered_in_a_sentence():
    objective = Bowl(number(0.9))
    tower = lift(maml(objective, 0.1), sgd(0.1))
    with pytest.raises(UserError, match="at least 2 draws"):
        gradient_health(tower, Nothing(), draws=1)
    with pytest.raises(UserError, match=r"without inner runs\. Lift it"):
        gradient_health(maml(objective, 0.1), Nothing())
    assert NearestNeighbour().steps == 1
