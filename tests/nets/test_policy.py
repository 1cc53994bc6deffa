import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metatower.core import put
from metatower.nets import GRU, ActorCritic, Categorical, Gaussian
from metatower.nets.recurrent import MEMORIES


@pytest.mark.parametrize("name", MEMORIES)
def test_all_inputs_at_once_are_as_one_by_one(name):
    memory = MEMORIES[name](3, 5, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (7, 3))
    state, said = memory.start(), []
    for each in x:
        state, y = memory(state, each)
        said.append(y)
    end, together = memory.over(memory.start(), x)
    np.testing.assert_allclose(together, jnp.stack(said), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(end, state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "remembers"), [("gru", True), ("mingru", True), ("none", False)])
def test_who_remembers(name, remembers):
    memory = MEMORIES[name](3, 5, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 3))
    last = [memory.over(memory.start(), x.at[0].add(change))[1][-1] for change in (0.0, 1.0)]
    assert bool(jnp.any(last[0] != last[1])) == remembers


def test_a_gru_by_hand():
    # one unit: r = σ(0) = ½, z = σ(0) = ½, n = tanh(x + ½ · 2h), h ← ½ n + ½ h
    gru = GRU(1, 1, key=jax.random.key(0))
    weights = [jnp.array([[0.0, 0.0, 1.0]]), jnp.array([[0.0, 0.0, 2.0]]), jnp.zeros(3), jnp.zeros(1)]
    gru = put(gru, weights)
    _, (first, second) = gru.over(gru.start(), jnp.array([[1.0], [0.0]]))
    np.testing.assert_allclose(first, 0.5 * np.tanh(1), rtol=1e-6)
    h = 0.5 * np.tanh(1)
    np.testing.assert_allclose(second, 0.5 * np.tanh(h) + 0.5 * h, rtol=1e-6)


def test_distributions_are_those_of_scipy():
    p = np.array([0.2, 0.5, 0.3])
    categorical = Categorical(jnp.log(p))
    np.testing.assert_allclose(categorical.log_probability(jnp.array(2)), np.log(0.3), rtol=1e-6)
    np.testing.assert_allclose(categorical.entropy(), stats.entropy(p), rtol=1e-6)
    assert categorical.mode() == 1
    drawn = jax.vmap(categorical.sample)(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 4000, p, atol=0.03)

    mean, scale, x = np.array([1.0, -2.0]), np.array([0.5, 3.0]), np.array([0.3, 1.0])
    gaussian = Gaussian(jnp.asarray(mean), jnp.log(scale))
    normal = stats.norm(mean, scale)
    np.testing.assert_allclose(gaussian.log_probability(jnp.asarray(x)), normal.logpdf(x).sum(), rtol=1e-5)
    np.testing.assert_allclose(gaussian.entropy(), normal.entropy().sum(), rtol=1e-5)
    drawn = jax.vmap(gaussian.sample)(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.2)
    np.testing.assert_allclose(drawn.std(axis=0), scale, rtol=0.05)


@pytest.mark.parametrize("discrete", [True, False])
def test_actor_and_critic_give_the_same_one_by_one(discrete):
    net = ActorCritic(3, 2, key=jax.random.key(0), discrete=discrete, size=4, hidden=6)
    x = jax.random.normal(jax.random.key(1), (5, 3))
    distribution, value = net.over(x)
    memory = net.start()
    for i, each in enumerate(x):
        memory, now, v = net(memory, each)
        np.testing.assert_allclose(v, value[i], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(now.entropy(), distribution.entropy()[i], rtol=1e-5)
    assert distribution.mode().shape == ((5,) if discrete else (5, 2))


def test_an_unknown_memory_is_answered():
    with pytest.raises(ValueError, match="one of gru, mingru, none, got 'lstm'"):
        ActorCritic(3, 2, key=jax.random.key(0), memory="lstm")
