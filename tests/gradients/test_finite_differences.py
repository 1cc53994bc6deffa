"""The gradient is right: reverse, forward and rematerialised, against finite differences in float64."""

import jax
import jax.numpy as jnp
import pytest
from tests.contract import EXACT, LEARNERS, RULES
from tests.toys import Slopes, curve, data, key, number, up

from metatower import Descend, Expected, Learner, rates_for, sgd
from metatower.core import Gradient, Unrolled, pick, put
from metatower.gradients import FirstOrder, ForwardMode

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")


def check(learner: Learner, gradient: Gradient, tasks, batch: int = 2, tolerance: float = 1e-6):
    """Compares the gradient of the expected loss with finite differences, along two random directions."""
    objective = Expected(learner, batch)
    leaves = pick(objective)

    def loss(leaves, key):
        return put(objective, leaves).crossed_by(gradient).loss(tasks, key=key)

    _, slope, _ = jax.jit(lambda: gradient.estimate(loss, leaves, None, key=key(1)))()
    value = jax.jit(lambda leaves: loss(leaves, key(1))[0])
    assert all(leaf.dtype == jnp.float64 for leaf in slope)
    for seed in range(2):
        keys = jax.random.split(jax.random.key(seed), len(leaves))
        direction = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
        step = 1e-5
        above, below = (
            value([leaf + sign * step * d for leaf, d in zip(leaves, direction, strict=True)]) for sign in (1, -1)
        )
        numeric = (above - below) / (2 * step)
        exact = sum(jnp.vdot(g, d) for g, d in zip(slope, direction, strict=True))
        assert abs(numeric) > 1e-4, "a flat direction tests nothing"
        assert abs(exact - numeric) < tolerance * abs(numeric)


def tower(height: int, gradient: Gradient) -> Learner:
    """What stands below storey `height`, every storey of two steps and a learned rate, crossed as `gradient` says."""
    learner = Descend(curve(), sgd(number(0.3)), steps=2)
    while learner.height < height - 1:
        learner = up(learner, gradient, batch=1)
    return learner


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("height", [1, 2])
def test_exact_gradients(name, height):
    gradient = EXACT[name]()
    check(tower(height, gradient), gradient, data(height))


@pytest.mark.parametrize("name", ["unrolled", "unrolled, without remat", "mixed mode", "forward mode"])
def test_exact_gradients_at_storey_3(name):
    gradient = EXACT[name]()
    check(tower(3, gradient), gradient, data(3), batch=1)


def test_forward_mode_over_two_reverse_storeys():
    check(tower(3, Unrolled()), ForwardMode(), data(3), batch=1)


@pytest.mark.parametrize("name", [name for name in RULES if name != "sgd, learned rate"])
def test_through_every_rule_and_its_hyper_parameters(name):
    learner = Descend(curve(), RULES[name](curve()), steps=3)
    check(learner, Unrolled(), Slopes(number(1.0)))


@pytest.mark.parametrize("name", ["momentum", "adam, all learned", "clip"])
def test_through_a_rule_one_storey_up(name):
    """The rule of storey 1 learns in a run that storey 2 differentiates."""
    inner = Descend(curve(), sgd(number(0.3)), steps=1)
    learner = Descend(Expected(inner, 2), RULES[name](curve()), steps=2)
    check(learner, Unrolled(), data(2))


def test_through_per_leaf_rates_of_a_lifted_learner():
    inner = Descend(curve(), sgd(rates_for(curve(), 0.3)), steps=1)
    expected = Expected(inner, 2)
    check(Descend(expected, sgd(rates_for(expected, 0.1)), steps=2), Unrolled(), data(2))


@pytest.mark.parametrize("name", ["anil", "meta_sgd", "a learner without gradient"])
def test_through_every_learner(name):
    check(LEARNERS[name](), Unrolled(), data(1))


def test_this_check_can_fail():
    with pytest.raises(AssertionError):
        check(tower(1, FirstOrder()), FirstOrder(), data(1))
