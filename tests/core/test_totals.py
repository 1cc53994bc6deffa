"""The total over chunks of tasks is the total over all at once, in value, every derivative, and less memory."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import curve, data, number, up

from metatower import Descend, Task, Tasks, lift, sgd
from metatower.core.keys import fork
from metatower.core.totals import total_score
from metatower.gradients import Evolution, FirstOrder, ForwardMode, MixedMode, Reptile, Truncated, Unrolled
from metatower.learners import maml
from metatower.nets import MLP, Examples, Supervised, squared_error

key = jax.random.key  # not the contract's cheap one, whose numbers depend on how many are drawn together


def stepped(learner, tasks):
    """The state after one step, and its loss."""

    def one(learner, tasks):
        state = learner.step(learner.start(key=key(0)), tasks, key=key(1))
        return state, learner.loss(state, tasks, key=key(2))[0]

    return eqx.filter_jit(one)(learner, tasks)


def one(varied, task):
    """Two numbers and a task's own, mixed."""
    a, b = varied
    x = jax.random.normal(task, (3,))
    return jnp.sum(jnp.sin(a * x) * b), {"shown": a * x[0]}


def total(chunk):
    keys, weights = fork(key(0), 7), jnp.arange(1.0, 8)
    return lambda varied: total_score(one, varied, keys, weights, chunk)


def by_hand(varied):
    found = [one(varied, task) for task in fork(key(0), 7)]
    return sum((i + 1) * loss for i, (loss, _) in enumerate(found)), sum(
        (i + 1) * shown["shown"] for i, (_, shown) in enumerate(found)
    )


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_value_and_derivatives_of_both_modes_and_orders(chunk, x64):
    at = number(0.7), number(-1.3)
    loss, shown = total(chunk)(at)
    np.testing.assert_allclose((loss, shown["shown"]), by_hand(at), rtol=1e-12)

    def mine(varied):
        return total(chunk)(varied)[0]

    def theirs(varied):
        return by_hand(varied)[0]

    for derivative in (jax.grad, jax.jacfwd, lambda f: jax.jacfwd(jax.grad(f)), lambda f: jax.jacrev(jax.jacrev(f))):
        for got, expected in zip(*(jax.tree.leaves(derivative(f)(at)) for f in (mine, theirs)), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_what_is_not_differentiated_costs_no_gradient(x64):
    # nothing as long as what stands still is added up
    still = jnp.ones(1000)

    def loss(a):
        return total_score(lambda v, _: (v[0] * v[1][0], {}), (a, still), fork(key(0), 2), jnp.ones(2), 1)[0]

    program = jax.make_jaxpr(jax.grad(loss))(number(0.5))
    scans = [each for each in program.eqns if each.primitive.name == "scan"]
    assert scans
    assert all(v.aval.shape != (1000,) for scan in scans for v in scan.outvars)
    np.testing.assert_allclose(
        jax.grad(lambda a: total(3)((a, number(2.0)))[0])(number(0.5)),
        jax.grad(lambda a: by_hand((a, number(2.0)))[0])(number(0.5)),
        rtol=1e-9,
    )


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize(
    "gradient",
    [Unrolled(), FirstOrder(), MixedMode(), ForwardMode(), Truncated(1), Reptile(), Evolution(pairs=2)],
    ids=lambda gradient: type(gradient).__name__,
)
def test_every_gradient_takes_the_same_step_in_chunks(gradient, chunk, x64):
    whole = lift(maml(curve(), number(0.2), steps=2), sgd(0.1), batch=3, gradient=gradient)
    parts = dataclasses.replace(whole, objective=dataclasses.replace(whole.objective, chunk=chunk))
    for got, expected in zip(*(jax.tree.leaves(stepped(each, data(1))) for each in (parts, whole)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_the_storey_above_differentiates_a_storey_in_chunks(x64):
    def trainer(chunk):
        return lift(maml(curve(), number(0.2), steps=2), sgd(number(0.1)), batch=3, steps=2, chunk=chunk)

    states = [stepped(up(trainer(chunk)), data(2)) for chunk in (None, 1, 2)]
    for other in states[1:]:
        for got, expected in zip(jax.tree.leaves(other), jax.tree.leaves(states[0]), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-8)


class Lines(Tasks):
    """A line through twenty points."""

    slope: jax.Array

    def sample(self, key):
        x = jax.random.normal(key, (20, 1))
        return Task(Examples(x, self.slope * x), Examples(x, self.slope * x))


def test_memory_does_not_grow_with_the_tasks():
    def bytes_of(tasks):
        net = Supervised(MLP((1, 64, 64, 1), key=key(0)), squared_error)
        tower = lift(Descend(net, sgd(0.1), 5), sgd(0.1), batch=tasks, chunk=1)
        state = tower.start(key=key(0))
        step = jax.jit(lambda state: tower.step(state, Lines(number(1.0)), key=key(1)))
        return step.lower(state).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of(64) < 1.2 * bytes_of(8)
