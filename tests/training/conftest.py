import jax
import jax.numpy as jnp
import pytest

import metatower as mt
from metatower.core import Learner
from metatower.nets import MLP, Supervised, squared_error
from metatower.tasks.functions import FunctionFamily, Sinusoids


def small_maml(rate=0.01, steps=1):
    net = MLP((1, 8, 1), key=jax.random.key(0))
    return mt.Descend(Supervised(net, squared_error), mt.sgd(jnp.array(rate)), steps=steps)


class Counter(Learner):
    """A learner with no gradient: counts its steps in integers and in a key, and may go bad at a step."""

    bad_at: int = -1

    def start(self, *, key):
        return {"count": 0, "key": key, "best": jnp.inf}

    def step(self, state, data, *, key):
        value = jnp.where(state["count"] == self.bad_at, jnp.nan, 1.0)
        return {"count": state["count"] + 1, "key": key, "best": jnp.minimum(state["best"], value)}

    def loss(self, state, data, *, key):
        return state["best"], {}


@pytest.fixture(scope="session")
def towers():
    """(top storey, data) at heights 0 to 2."""
    example = Sinusoids(shots=5, queries=5).sample(jax.random.key(1)).support
    maml = small_maml()
    one = mt.lift(maml, mt.adam(1e-2), batch=2)
    two = mt.lift(mt.lift(maml, mt.sgd(0.01), batch=2, steps=2), mt.adam(1e-3))
    return [(maml, example), (one, Sinusoids(shots=5, queries=5)), (two, FunctionFamily(shots=5, queries=5))]


@pytest.fixture(scope="session")
def counter():
    return Counter
