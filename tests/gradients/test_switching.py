"""Switching between estimators, on the logistic map: tame for small rates, chaotic for large ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import curve, key, number

from metatower import Descend, Learner, Task, Tasks, lift, sgd
from metatower.core import Unrolled
from metatower.gradients import NRES, Evolution, Switching

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")


class Logistic(Learner):
    """x ← r x (1 − x) from 0.3, judged by (x − 0.6)²: at r = 2.5 it ends there, beyond 3.57 it is mostly chaotic."""

    r: jax.Array
    steps: int = 60

    def start(self, *, key):
        return 0.3 + 0 * self.r

    def step(self, state, data, *, key):
        return self.r * state * (1 - state)

    def loss(self, state, data, *, key):
        return (state - 0.6) ** 2, {}


class Nothing(Tasks):
    def sample(self, key):
        return Task(jnp.zeros(()), jnp.zeros(()))


EVOLUTION = Evolution(pairs=8, sigma=0.02)


def stepped(r, gradient, steps=60):
    """One step of rate 1: the gradient, and the state after it."""
    trainer = lift(Logistic(number(r), steps), sgd(1.0), gradient=gradient)
    before = trainer.start(key=key(0))
    after, metrics = jax.jit(lambda state: trainer.update(state, Nothing(), key=key(1)))(before)
    return float(before.leaves[0] - after.leaves[0]), after, metrics


def test_the_first_where_the_run_is_tame():
    switching = Switching(Unrolled(), EVOLUTION, limit=10.0)
    exact, _, _ = stepped(2.5, Unrolled())
    found, state, _ = stepped(2.5, switching)
    assert found == exact
    assert state.gradient.count == 0


def test_the_second_where_it_is_chaotic():
    exact, _, _ = stepped(3.9, Unrolled())
    assert abs(exact) > 1e6, "not chaotic enough to test anything"
    smooth, _, _ = stepped(3.9, EVOLUTION)
    found, state, metrics = stepped(3.9, Switching(Unrolled(), EVOLUTION, limit=10.0))
    assert found == smooth
    assert abs(found) < 30
    assert state.gradient.count == 1
    assert 0 <= metrics["loss"] < 1


def test_the_second_where_the_first_is_not_finite():
    """So long a run that its gradient overflows, while its value is as good as any."""
    assert not np.isfinite(stepped(3.9, Unrolled(), 4000)[0])
    found, state, metrics = stepped(3.9, Switching(Unrolled(), EVOLUTION, limit=float("inf")), 4000)
    assert np.isfinite(found)
    assert np.isfinite(metrics["loss"])
    assert state.gradient.count == 1


def test_it_changes_its_mind_and_keeps_both_memories():
    """Over a run in which r wanders between the two regimes; the memory of NRES goes on only when it is asked."""
    gradient = Switching(
        Unrolled(), NRES(pairs=2, sigma=0.02, unroll=20, every_step=False, staggered=False), limit=10.0
    )

    def after(r, state):
        trainer = lift(Logistic(number(r)), sgd(0.0), gradient=gradient)
        state = trainer.start(key=key(0)) if state is None else state
        state = type(state)([number(r)], state.rule, state.gradient, state.seen)
        return jax.jit(lambda state: trainer.step(state, Nothing(), key=key(1)))(state)

    state, counts, clocks = None, [], []
    for r in (2.5, 3.9, 3.9, 2.5, 3.9):
        state = after(r, state)
        counts.append(int(state.gradient.count))
        clocks.append(int(state.gradient.second.clock[0]))
    assert counts == [0, 1, 2, 2, 3]
    assert clocks == [0, 1, 2, 2, 0]  # three windows to a run


class Squashed(Logistic):
    """The same with r = 4 / (1 + exp(−leaf)), so that no step leaves the map's domain."""

    def step(self, state, data, *, key):
        return 4 * jax.nn.sigmoid(self.r) * state * (1 - state)


def test_descending_through_chaos():
    """From r = 3.8, one exact gradient throws the leaf out of sight.

    Switched, evolution leaves the chaos in some steps, and the exact gradient finds the r that ends at 0.6, 2.5.
    """

    def final(gradient):
        trainer = lift(Squashed(number(3.0)), sgd(2.0), steps=200, gradient=gradient)
        state = jax.jit(lambda: trainer.adapt(Nothing(), key=key(2)))()
        return float(state.leaves[0]), state

    thrown, _ = final(Unrolled())
    assert abs(thrown) > 1e6
    found, state = final(Switching(Unrolled(), Evolution(pairs=16, sigma=0.6), limit=1.0))
    np.testing.assert_allclose(4 / (1 + np.exp(-found)), 2.5, rtol=1e-6)
    assert 0 < state.gradient.count < 100


def test_both_failing_is_not_hidden():
    tower = lift(Descend(curve(), sgd(0.1)), sgd(0.1), gradient=Switching(Unrolled(), Evolution(2), limit=1.0))

    class Broken(Tasks):
        def sample(self, key):
            from tests.toys import data

            task = data(1).sample(key)
            return jax.tree.map(lambda x: x * jnp.nan, task)

    state, metrics = tower.update(tower.start(key=key(0)), Broken(), key=key(1))
    assert jnp.isnan(metrics["loss"])
    assert all(jnp.isnan(leaf) for leaf in state.leaves)


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="limit above 0"):
        Switching(Unrolled(), EVOLUTION, limit=0.0)
