import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.core import pick, put
from metatower.nets.optimisee import KINDS, Optimisee, Problem
from metatower.tasks.optimisation import ProblemFamily
from metatower.tasks.pooled import Pooled

pytestmark = pytest.mark.usefixtures("quick_compile")
KEY = jax.random.key(0)
OBJECTIVE = Optimisee(2, 3)
NUMBERS, EXAMPLES = 12, 30


sampled = eqx.filter_jit(lambda tasks, keys: jax.vmap(tasks.sample)(keys))


def drawn(**options):
    """60 problems, stacked, of one distribution each."""
    family = ProblemFamily(inputs=2, units=3, examples=EXAMPLES, **options)
    return sampled(Pooled(family), jax.random.split(KEY, 60))


def one(problems: Problem, i: int) -> Problem:
    return jax.tree.map(lambda x: x[i], problems)


def loss(problem: Problem, leaves) -> jax.Array:
    return put(OBJECTIVE, leaves).loss(problem, key=KEY)[0]


def test_a_problem_is_a_function_of_its_key_and_problems_of_a_distribution_differ():
    member = ProblemFamily(inputs=2, units=3, examples=EXAMPLES).sample(KEY).support
    sample = eqx.filter_jit(lambda key: member.sample(key).support)
    first, again, other = (sample(jax.random.key(i)) for i in (1, 1, 2))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        assert np.array_equal(a, b)
    for name in ("x", "y", "scale"):
        assert not np.allclose(getattr(first, name), getattr(other, name)), name
    together = sampled(member, jnp.stack([jax.random.key(1), jax.random.key(2)])).support
    np.testing.assert_allclose(together.x[1], other.x, atol=1e-5)
    np.testing.assert_allclose(together.y[1], other.y, atol=1e-4)


@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_the_spectrum_is_log_spaced_and_turned_at_random(spread):
    problems = drawn(kinds=("quadratic", "logistic"), spread=(spread, spread)).support
    for x in np.asarray(problems.x, np.float64):
        found = np.linalg.eigvalsh(x.T @ x / EXAMPLES)[::-1]
        np.testing.assert_allclose(found, spread ** -np.linspace(0, 1, NUMBERS), rtol=1e-2)
    # no direction is preferred: every axis has its share of the trace
    shares = np.mean(np.asarray(problems.x) ** 2, axis=(0, 1))
    assert shares.max() / shares.min() < 3


def test_the_inputs_of_a_network_have_that_spectrum_too_and_the_rest_is_empty():
    problems = drawn(kinds=("teacher",), spread=(50.0, 50.0)).support
    for x in np.asarray(problems.x, np.float64):
        found = np.linalg.eigvalsh(x[:, :2].T @ x[:, :2] / EXAMPLES)[::-1]
        np.testing.assert_allclose(found, [1, 1 / 50], rtol=1e-2)
    assert not np.any(problems.x[:, :, 2:])
    assert all(np.std(start, axis=0).min() > 0.1 for start in problems.start)


def test_scales_stay_within_reach_and_reach_it():
    scales = np.asarray(drawn(reach=1000.0).support.scale)
    assert scales.shape == (60, 3)
    assert scales.min() >= 1e-3
    assert scales.max() <= 1e3
    # log-uniform: mean 0 and a variance of a third, in units of the reach, and tensors do not share a factor
    logs = np.log(scales) / np.log(1000)
    assert abs(logs.mean()) < 0.15
    assert abs(logs.var() - 1 / 3) < 0.08
    assert abs(np.corrcoef(logs.T)[0, 1]) < 0.4
    assert np.array_equal(drawn(reach=1.0).support.scale, np.ones((60, 3)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_applies_the_scales(kind):
    """The gradient by a tensor is its scale times what it would be without."""
    problem = one(drawn(kinds=(kind,)).support, 0)
    plain = Problem(problem.kind, problem.x, problem.y, problem.start, jnp.ones(3))
    leaves = [0.1 * jax.random.normal(jax.random.key(i), leaf.shape) for i, leaf in enumerate(pick(OBJECTIVE))]
    moved = [scale * leaf for scale, leaf in zip(problem.scale, leaves, strict=True)]
    np.testing.assert_allclose(loss(problem, leaves), loss(plain, moved), rtol=1e-5)
    scaled, unscaled = jax.grad(loss, 1)(problem, leaves), jax.grad(loss, 1)(plain, moved)
    for scale, a, b in zip(problem.scale, scaled, unscaled, strict=True):
        np.testing.assert_allclose(a, scale * b, rtol=1e-3, atol=1e-5)
        assert np.abs(a).max() > 0


def test_the_optimum_of_a_quadratic_is_known():
    tasks = drawn(kinds=("quadratic",), noise=(0.05, 0.05))
    for i in range(5):
        problem = one(tasks.support, i)
        x, y = np.asarray(problem.x, np.float64), np.asarray(problem.y, np.float64)
        solution, *_ = np.linalg.lstsq(x, y, rcond=None)
        floor = 0.5 * np.mean((x @ solution - y) ** 2)
        # noise in 12 of 30 directions is fitted
        expected = 0.5 * 0.05**2 * np.mean(y**2) * (1 - NUMBERS / EXAMPLES)
        assert 0.3 * expected < floor < 2.5 * expected
        parts = np.split(solution, [6, 9])
        shaped = zip(parts, pick(OBJECTIVE), problem.scale, strict=True)
        leaves = [jnp.asarray(part.reshape(leaf.shape) / scale, jnp.float32) for part, leaf, scale in shaped]
        value, gradient = jax.value_and_grad(loss, 1)(problem, leaves)
        np.testing.assert_allclose(value, floor, rtol=1e-2)
        start = jax.grad(loss, 1)(problem, pick(OBJECTIVE))
        for at_optimum, before in zip(gradient, start, strict=True):
            assert np.abs(at_optimum).max() < 1e-4 * np.abs(before).max()
        # it is judged by the same problem
        assert float(loss(one(tasks.query, i), leaves)) == float(value)


def test_a_teacher_is_no_linear_function_and_judged_on_other_examples():
    support, query = (getattr(drawn(kinds=("teacher",), noise=(0.3, 0.3)), name) for name in ("support", "query"))
    assert not np.allclose(support.x, query.x)
    for x, y in zip(np.asarray(query.x)[:, :, :2], np.asarray(query.y), strict=True):
        fit, *_ = np.linalg.lstsq(x, y, rcond=None)
        assert np.mean((x @ fit - y) ** 2) > 1e-3 * np.mean(y**2)


def test_labels_are_signs_and_noise_tells_some_of_them_wrongly():
    clear, noisy = (drawn(kinds=("logistic",), noise=(noise, noise)).support for noise in (1e-6, 0.3))
    assert set(np.unique(clear.y)) == {-1.0, 1.0}
    assert np.array_equal(clear.x, noisy.x)
    assert abs(np.mean(np.asarray(clear.y != noisy.y)) - 0.3) < 0.05


def test_held_out_ranges_share_nothing_with_those_of_training():
    def ranges(**options):
        family = ProblemFamily(**options)
        members = jax.vmap(lambda key: family.sample(key).support)(jax.random.split(KEY, 200))
        return [(float(each.min()), float(each.max())) for each in (members.spread, members.noise)]

    trained, held_out = ranges(), ranges(spread=(300.0, 3000.0), noise=(0.2, 0.4))
    for (least, most), (low, high) in zip(trained, held_out, strict=True):
        assert least < most < low < high
    assert trained[0][0] < 1.2
    assert 80 < trained[0][1] <= 100.01


def test_a_pair_is_one_distribution_and_kinds_are_those_asked_for():
    family = ProblemFamily(("quadratic", "teacher"))
    pairs = jax.vmap(family.sample)(jax.random.split(KEY, 50))
    assert np.array_equal(pairs.support.spread, pairs.query.spread)
    assert {KINDS[kind] for kind in np.asarray(pairs.support.kind)} == {"quadratic", "teacher"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ("cubic",)}, "cubic"),
        ({"kinds": ()}, "kinds"),
        ({"spread": (0.5, 2.0)}, "1 <= spread"),
        ({"noise": (0.0, 0.1)}, "0 < noise"),
        ({"reach": 0.1}, "1 <= reach"),
        ({"examples": 20}, "21 examples"),
    ],
)
def test_wrong_families_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ProblemFamily(**options)


def test_parameters_of_another_size_are_refused():
    with pytest.raises(ValueError, match="12 columns and the parameters 8 numbers"):
        Optimisee(2, 2).loss(one(drawn().support, 0), key=KEY)
    with pytest.raises(ValueError, match="one input and one unit"):
        Optimisee(0, 2)
