"""Oracles and the random agent: learners of which nothing can be learned keep the laws that apply."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower import lift, sgd
from metatower.envs import BernoulliBandit, Box, Discrete, GridNavi, Navigation, World
from metatower.envs.references import gridnavi, navigation
from metatower.envs.references.bandit import gittins_table
from metatower.learners.bandit_agents import Gittins
from metatower.learners.informed import Oracle, Random

KEY = jax.random.key(0)
ROWS = {
    "oracle of discrete actions": (Oracle(5, gridnavi.oracle_action), GridNavi()),
    "oracle of vectors": (Oracle(2, navigation.oracle_action), Navigation(horizon=5)),
    "random, discrete": (Random(Discrete(5)), GridNavi()),
    "random, vectors": (Random(Box(-0.1, 0.1, (2,))), Navigation(horizon=5)),
    "gittins": (Gittins(3, gittins_table(4)), BernoulliBandit(3)),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_laws(row):
    agent, environment = ROWS[row]
    keys = jax.random.split(KEY, 2)

    @jax.jit
    def one(key):
        world = World(environment, environment.sample_task(key))
        start = agent.start(key=key)
        state = agent.step(start, world, key=key)
        return start, state, agent.loss(state, world, key=key)[0]

    start, state, loss = one(keys[0])
    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype), eqx.filter(each, eqx.is_array)) for each in (start, state)]
    assert kinds[0] == kinds[1]
    assert jnp.isfinite(loss)
    again, together = one(keys[0]), jax.jit(jax.vmap(one))(keys)
    for a, b, c in zip(*(jax.tree.leaves(x) for x in ((start, state, loss), again, together)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c[0], rtol=1e-5)


def test_a_plan_is_made_of_the_task():
    agent = Oracle(2, lambda plan, seen, time: plan * (time + 1.0), lambda task: 2 * task)
    state = agent.knowing(jnp.array([0.01, 0.0])).start(key=KEY)
    world = World(Navigation(horizon=3), jnp.array([0.01, 0.0]))
    state = agent.step(state, world, key=KEY)
    np.testing.assert_allclose(state.action, [0.06, 0.0], rtol=1e-6)  # time is 2 at the third step
    state = agent.step(state, world, key=KEY)
    np.testing.assert_allclose(state.action, [0.06, 0.0], rtol=1e-6)  # and begins anew in the next episode


def test_there_is_nothing_to_be_learned():
    with pytest.raises(ValueError, match="offers nothing to learn"):
        lift(Random(Discrete(2)), sgd(0.1)).start(key=KEY)
