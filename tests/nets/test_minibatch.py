import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower import Descend, sgd
from metatower.core import Objective
from metatower.nets import Examples, Minibatch


class Mean(Objective):
    """How far one number is from the mean of the inputs."""

    centre: jax.Array

    def loss(self, data, *, key):
        del key
        return (self.centre - jnp.mean(data.x)) ** 2, {"mean": jnp.mean(data.x), "count": jnp.float32(len(data.y))}


class Weights(Objective):
    """Shows what it is given."""

    def loss(self, data, *, key):
        del key
        return jnp.zeros(()), {"weight": data.weight, "x": data.x}


DATA = Examples(jnp.arange(10.0), jnp.arange(10))


def test_draws_other_examples_with_every_key_and_none_twice():
    objective = Minibatch(Mean(jnp.array(0.0)), 4)
    found = [objective.loss(DATA, key=jax.random.key(i))[1] for i in range(200)]
    means = np.array([float(each["mean"]) for each in found])
    assert {float(each["count"]) for each in found} == {4.0}
    assert len(set(means)) > 10
    # four different numbers of 0 to 9: between 1.5 and 7.5, around 4.5
    assert means.min() >= 1.5
    assert means.max() <= 7.5
    assert abs(means.mean() - 4.5) < 0.4


def test_padding_is_drawn_only_where_there_is_nothing_else():
    weight = jnp.array([0.0, 1, 0, 1, 1, 0, 0, 1, 0, 0])
    data = dataclasses.replace(DATA, weight=weight)
    weights = [Minibatch(Weights(), size).loss(data, key=jax.random.key(i))[1] for size in (3, 6) for i in range(20)]
    assert {float(jnp.sum(each["weight"])) for each in weights[:20]} == {3.0}
    assert {float(jnp.sum(each["weight"])) for each in weights[20:]} == {4.0}
    assert len({tuple(each["x"].tolist()) for each in weights[:20]}) > 5


def test_a_finished_run_is_judged_on_all():
    learner = Descend(Minibatch(Mean(jnp.array(0.0)), 2), sgd(0.1), steps=50)
    state = learner.adapt(DATA, key=jax.random.key(0))
    assert float(learner.loss(state, DATA, key=jax.random.key(1))[1]["count"]) == 10.0
    assert float(learner.result(state).objective.centre) == pytest.approx(4.5, abs=1.5)


def test_padding_and_labels_go_along():
    class Kept(Objective):
        def loss(self, data, *, key):
            del key
            return jnp.sum(data.x * data.weight) * 0.0, {
                "same": 1.0 * jnp.all(data.x == data.weight),
                "ways": 1.0 * data.ways,
            }

    data = Examples(DATA.x, DATA.y, DATA.x, jnp.array([True, False]))
    scored = Minibatch(Kept(), 3).loss(data, key=jax.random.key(0))[1]
    assert bool(scored["same"])
    assert scored["ways"].tolist() == [1.0, 0.0]


def test_nothing_is_no_batch():
    with pytest.raises(ValueError, match="at least 1"):
        Minibatch(Mean(jnp.array(0.0)), 0)
