"""Faults are planted at a known storey, step, task and leaf; `locate` must name exactly these."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float, Int

import metatower as mt
from metatower.core import Learner, Objective, Task, Tasks
from metatower.core.forensics import first_bad, locate, numbers_of
from metatower.core.gradient import score
from metatower.gradients import Evolution, FirstOrder, ForwardMode

KEY = jax.random.key(5)


class Bowl(Objective):
    """|p − target|², undefined on a bad target once p has moved half the way."""

    p: Float[Array, "2"]
    q: Float[Array, "2"]

    def loss(self, data, *, key):
        distance = jnp.sum((self.p - data) ** 2)
        trap = jnp.where((data[1] > 50) & (self.p[0] > 0.5), jnp.nan, 1.0)
        return distance * trap + 0.0 * jnp.sum(self.q), {}


class Targets(Tasks):
    """Tasks whose target is (mark, 0) or, for every key that `bad` accepts, (mark, 100)."""

    mark: Float[Array, ""]
    bad: Int[Array, ""]

    def sample(self, key):
        number = jax.random.bits(key, dtype=jnp.uint32) % 8
        target = jnp.stack([self.mark, jnp.where(number == self.bad, 100.0, 0.0)])
        return Task(target, jnp.stack([self.mark, jnp.zeros(())]))


class Family(Tasks):
    """Tasks of storey 2."""

    bad: Int[Array, ""]

    def sample(self, key):
        tasks = Targets(jnp.ones(()), self.bad)
        return Task(tasks, tasks)


def bad_tasks(keys, bad):
    return [i for i, key in enumerate(keys) if int(jax.random.bits(key, dtype=jnp.uint32) % 8) == bad]


def inner(rate=0.2, steps=4):
    # p[0] goes 0, 0.4, 0.64: past 0.5 after two steps, so step 2 (the third) is the first to meet the trap
    return mt.Descend(Bowl(jnp.zeros(2), jnp.zeros(2)), mt.sgd(rate), steps=steps)


def test_finite_steps_have_no_fault():
    top = mt.lift(inner(), mt.sgd(0.1), batch=8)
    state = top.start(key=KEY)
    assert locate(top, state, Targets(jnp.ones(()), jnp.array(9)), KEY) is None


@pytest.mark.parametrize("gradient", [None, FirstOrder(), ForwardMode(), Evolution(pairs=2)])
def test_storey_1_names_the_task_and_the_inner_step(gradient):
    top = mt.lift(inner(), mt.sgd(0.1), batch=16, gradient=gradient)
    state, tasks = top.start(key=KEY), Targets(jnp.ones(()), jnp.array(3))
    _, loss_key = top.scored(state, key=KEY)
    task_keys = [run.task_key for run in top.objective.runs(tasks, key=loss_key)]
    expected = bad_tasks(task_keys, 3)
    assert 0 < len(expected) < 16, "the test needs a bad task that is not alone"
    fault = locate(top, state, tasks, KEY)
    assert (fault.what, fault.leaf, fault.storey) == ("loss", "loss", 0)
    assert (fault.step, fault.task) == (2, expected[0])
    assert jnp.array_equal(jax.random.key_data(fault.key), jax.random.key_data(task_keys[expected[0]]))
    # the key makes the task again
    assert tasks.sample(fault.key).support[1] == 100
    assert f"storey 0, step 2 on task {expected[0]} (key 0x" in str(fault)


class Spy(Learner):
    """Another learner, and the keys that its steps were given."""

    of: Learner
    keys: list = eqx.field(static=True)

    @property
    def steps(self):
        return self.of.steps

    def start(self, *, key):
        return self.of.start(key=key)

    def step(self, state, data, *, key):
        self.keys.append(key)
        return state

    def loss(self, state, data, *, key):
        return jnp.zeros(()), {}


def test_storey_2_names_the_whole_trail():
    one = mt.lift(inner(), mt.sgd(0.01), batch=4, steps=3)
    top = mt.lift(one, mt.sgd(0.1), batch=3)
    state, family = top.start(key=KEY), Family(jnp.array(3))
    fault = locate(top, state, family, KEY)
    assert fault.storey == 0
    assert [place.storey for place in fault.trail] == [1, 0]
    outer, deepest = fault.trail
    assert deepest.step == 2
    # the first run of the outer trail, done by the library with a learner that notes its keys
    first = list(top.result(state).runs(family, key=KEY))[outer.task]
    assert outer.key == numbers_of(first.task_key)
    spy = Spy(one, [])
    with jax.disable_jit():
        score(spy, family.sample(first.task_key), key=first.key)
    keys = [[run.task_key for run in one.objective.runs(family, key=key)] for key in spy.keys]
    bad = [bad_tasks(each, 3) for each in keys]
    assert outer.step == next(i for i, each in enumerate(bad) if each)
    assert deepest.task == bad[outer.step][0]
    assert deepest.key == numbers_of(keys[outer.step][deepest.task])
    assert "; inside storey 1, step" in str(fault)


def test_a_bad_query_is_told_from_a_bad_run():
    class Blind(Bowl):
        def loss(self, data, *, key):
            return jnp.where(data[1] < 0, jnp.inf, jnp.sum((self.p - data) ** 2)), {}

    class Negative(Tasks):
        def sample(self, key):
            return Task(jnp.ones(2), -jnp.ones(2))

    learner = mt.Descend(Blind(jnp.zeros(2), jnp.zeros(2)), mt.sgd(0.1), steps=2)
    top = mt.lift(learner, mt.sgd(0.1), batch=2)
    fault = locate(top, top.start(key=KEY), Negative(), KEY)
    assert (fault.what, fault.storey, fault.task, fault.step) == ("query loss", 0, 0, None)


def test_bad_task_data():
    class Broken(Tasks):
        def sample(self, key):
            return Task(jnp.ones(2), jnp.array([1.0, jnp.nan]))

    top = mt.lift(inner(), mt.sgd(0.1), batch=2)
    fault = locate(top, top.start(key=KEY), Broken(), KEY)
    assert (fault.what, fault.leaf, fault.task) == ("task data", "query", 0)


def test_a_gradient_that_is_bad_only_on_the_way_back():
    class Root(Bowl):
        """√ of a number that is zero at the start: finite, with a derivative that is not."""

        def loss(self, data, *, key):
            loss, metrics = super().loss(data, key=key)
            return loss + jnp.sqrt(jnp.sum(self.q**2)), metrics

    storey_0 = mt.Descend(Root(jnp.zeros(2), jnp.zeros(2)), mt.sgd(0.1))
    fault = locate(storey_0, storey_0.start(key=KEY), jnp.ones(2), KEY)
    assert (fault.what, fault.leaf, fault.storey, fault.trail) == ("gradient", "q", 0, ())

    # the same, crossing one storey: the inner steps leave q alone, the derivative of the query's loss does not
    learner = mt.Descend(Root(jnp.zeros(2), jnp.zeros(2)), mt.sgd(0.1), learn=lambda bowl: bowl.p)
    top = mt.lift(learner, mt.sgd(0.1), batch=2)
    fault = locate(top, top.start(key=KEY), Targets(jnp.ones(()), jnp.array(9)), KEY)
    assert (fault.what, fault.leaf, fault.storey, fault.task) == ("gradient", "objective.q", 1, 0)
    assert fault.step is None


def test_a_learner_of_ones_own_inside_a_tower():
    class Rememberer(Learner):
        """No gradient inside: keeps a mean, and divides by a count that a bad target makes zero at its second step."""

        steps = 3
        bias: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.zeros(()))

        def start(self, *, key):
            return {"count": jnp.zeros(()), "best": jnp.array(jnp.inf), "mean": jnp.zeros(())}

        def step(self, state, data, *, key):
            count = state["count"] + 1
            weight = jnp.where((data[1] > 50) & (count == 2), 0.0, count)
            return {"count": count, "best": state["best"], "mean": state["mean"] + data[0] / weight}

        def loss(self, state, data, *, key):
            return (state["mean"] + self.bias - data[0]) ** 2, {}

    top = mt.lift(Rememberer(), mt.sgd(0.1), batch=16)
    fault = locate(top, top.start(key=KEY), Targets(jnp.ones(()), jnp.array(3)), KEY)
    # `best` starts infinite, which is its own business
    assert (fault.what, fault.leaf, fault.storey, fault.step) == ("state", "mean", 0, 1)


def test_first_bad():
    assert first_bad({"a": jnp.ones(2), "b": [jnp.array([1, jnp.inf])], "k": jax.random.key(0)}) == "b.0"
    assert first_bad({"a": jnp.arange(3)}) is None
    assert first_bad(jnp.array(jnp.inf), jnp.array(jnp.inf)) is None
    assert first_bad(jnp.array(jnp.nan), jnp.array(jnp.inf)) == "array"
    assert first_bad(jnp.array(-jnp.inf), jnp.array(1.0)) == "array"


def test_runs_are_the_loss():
    """What `runs` names is what `loss` averages, so a replay cannot look at anything else."""
    top = mt.lift(inner(), mt.sgd(0.1), batch=3)
    tasks = Targets(jnp.ones(()), jnp.array(9))
    objective = top.objective
    scores = [run.score()[0] for run in objective.runs(tasks, key=KEY)]
    assert jnp.allclose(jnp.mean(jnp.stack(scores)), objective.loss(tasks, key=KEY)[0])
    for each, value in zip(objective.runs(tasks, key=KEY), scores, strict=True):
        assert jnp.allclose(score(each.learner, tasks.sample(each.task_key), key=each.key)[0], value)
