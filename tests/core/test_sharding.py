"""On several devices a tower computes what it computes on one."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
import pytest
from tests.contract import ESTIMATORS, EXACT
from tests.toys import Memory, curve, data, number, up

from metatower import sgd
from metatower.core.sharding import Sharded, how_spread, shard
from metatower.core.tower import lift
from metatower.gradients import Clipped, Relative
from metatower.learners import maml

key = jax.random.key  # the cheap generator of `contract.key` gives a batch of keys other numbers than each key alone


@pytest.fixture(autouse=True)
def _quick(quick_compile, x64):
    assert len(jax.devices()) >= 3, "conftest.py asks for three CPU devices"


def assert_same_step(tower, sharded):
    tasks = data(tower.height)
    step = eqx.filter_jit(lambda learner, state, data, key: learner.update(state, data, key=key))
    state = tower.start(key=key(0))
    alone = step(tower, state, tasks, key(1))
    together = step(sharded, sharded.replicate(state), sharded.replicate(tasks), key(1))
    moved = jax.tree.map(lambda x, y: float(np.max(np.abs(x - y))), alone[0].leaves, state.leaves)
    assert max(moved) > 1e-5, "a step that moves nothing shows nothing"
    for one, many in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        # only the order of a few sums differs
        np.testing.assert_allclose(many, one, rtol=1e-12, atol=1e-14)
        assert len(many.sharding.device_set) == sharded.mesh.size
        for copy in many.addressable_shards:
            np.testing.assert_array_equal(copy.data, many)


def mean_of(batch: int, gradient=None):
    return up(maml(curve(), number(0.2), steps=2), gradient, batch)


@pytest.mark.parametrize("batch", [2, 3, 4, 5])
@pytest.mark.parametrize("devices", [2, 3])
def test_any_number_of_tasks_on_any_number_of_devices(batch, devices):
    assert_same_step(mean_of(batch), shard(mean_of(batch), devices))


@pytest.mark.parametrize("name", [*EXACT, *ESTIMATORS])
def test_every_gradient(name):
    tower = mean_of(3, {**EXACT, **ESTIMATORS}[name]())
    assert_same_step(tower, shard(tower, 2))


@pytest.mark.parametrize("name", ["unrolled", "forward mode", "first order", "evolution"])
@pytest.mark.parametrize("batches", [(2, 3), (4, 1)])  # shared at the top, and below it
def test_gradients_through_a_storey_that_is_shared(name, batches):
    below, above = batches
    tower = up(mean_of(below), {**EXACT, **ESTIMATORS}[name](), above)
    sharded = shard(tower, 2)
    assert_same_step(tower, sharded)


@pytest.mark.parametrize("gradient", [Clipped(1e-3), Clipped(1e-3, Relative()), Relative()])
@pytest.mark.parametrize("batches", [(2, 3), (4, 1), (4, 3)])
def test_runs_are_clipped_whole_wherever_devices_share(gradient, batches):
    below, above = batches
    tower = up(mean_of(below), gradient, above)
    assert_same_step(tower, shard(tower, 2))


def test_three_storeys_shared_at_the_lowest():
    tower = up(up(mean_of(3), batch=1), batch=1)
    sharded = shard(tower, 3)
    assert sharded.tower.objective.learner.objective.learner.objective.shared
    assert_same_step(tower, sharded)


def test_learners_without_gradient():
    tower = lift(Memory(number(0.3), number(2.0)), sgd(0.1), batch=3)
    assert_same_step(tower, shard(tower, 2))


def test_chunks_are_of_each_device():
    tower = mean_of(6)
    chunked = dataclasses.replace(tower, objective=dataclasses.replace(tower.objective, chunk=1))
    assert_same_step(tower, shard(chunked, 2))


def test_judging_is_shared_too():
    tower = mean_of(3)
    sharded = shard(tower, 2)
    state, tasks = tower.start(key=key(0)), data(1)
    judge = eqx.filter_jit(lambda learner: learner.loss(state, tasks, key=key(1))[0])
    alone, together = judge(tower), judge(sharded)
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_the_storey_that_keeps_devices_busiest_is_shared():
    assert shard(mean_of(4), 2).tower.objective.shared
    both = shard(up(mean_of(4), batch=2), 2).tower
    assert both.objective.shared
    assert not both.objective.learner.objective.shared
    below = shard(up(mean_of(4), batch=3), 2).tower
    assert not below.objective.shared
    assert below.objective.learner.objective.shared


def test_what_cannot_be_shared_stays_as_it_is():
    alone = maml(curve(), number(0.2), steps=2)
    assert shard(alone, 2) is alone
    tower = mean_of(3)
    assert shard(tower, 1) is tower
    assert shard(mean_of(2), 3).mesh.size == 2, "a device without a task is left out"
    assert isinstance(shard(mean_of(3)), Sharded)


@pytest.mark.parametrize("devices", [0, 99])
def test_devices_that_are_not_there(devices):
    with pytest.raises(ValueError, match=r"expected 1 to \d+ devices"):
        shard(mean_of(3), devices)


def test_a_sentence_says_where_a_tower_runs(monkeypatch):
    tower = up(mean_of(3), batch=2)
    assert how_spread(tower, data(2), 3) == (
        "Training shares the 3 tasks of a step of storey 1 between 3 devices."  # of the 2 above one device would idle
    )
    assert how_spread(tower, data(2), 1) == "Training runs on one device."
    assert "over before they have found each other" in how_spread(tower, data(2))
    assert "has no tasks to share" in how_spread(maml(curve(), number(0.2)), data(0))
    monkeypatch.setattr("metatower.core.sharding.WORTH", 0.0)
    assert "tasks of a step of storey" in how_spread(tower, data(2))
