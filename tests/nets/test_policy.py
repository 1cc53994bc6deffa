import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metatower.core import put
from metatower.nets import GRU, ActorCritic, Categorical, Gaussian, LinearAttention
from metatower.nets.recurrent import MEMORIES, PIECE


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
    for one, other in zip(jax.tree.leaves(end), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    # and what is remembered is all that counts
    middle, first = memory.over(memory.start(), x[:3])
    np.testing.assert_allclose(jnp.concatenate([first, memory.over(middle, x[3:])[1]]), together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "remembers"), [("gru", True), ("mingru", True), ("attention", True), ("none", False)])
def test_who_remembers(name, remembers):
    memory = MEMORIES[name](3, 5, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 3))
    last = [memory.over(memory.start(), x.at[0].add(change))[1][-1] for change in (0.0, 1.0)]
    assert bool(jnp.any(last[0] != last[1])) == remembers


def test_linear_attention_takes_long_inputs_piece_by_piece():
    memory = LinearAttention(3, 8, key=jax.random.key(0), heads=2)
    x = jax.random.normal(jax.random.key(1), (2 * PIECE + 7, 3))

    def one_by_one(memory_now, each):
        return memory(memory_now, each)

    together, separate = memory.over(memory.start(), x), jax.lax.scan(one_by_one, memory.start(), x)
    for one, other in zip(jax.tree.leaves(together), jax.tree.leaves(separate), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_gru_by_hand():
    # one unit: r = σ(0) = ½, z = σ(0) = ½, n = tanh(x + ½ · 2h), h ← ½ n + ½ h
    gru = GRU(1, 1, key=jax.random.key(0))
    weights = [jnp.array([[0.0, 0.0, 1.0]]), jnp.array([[0.0, 0.0, 2.0]]), jnp.zeros(3), jnp.zeros(1)]
    gru = put(gru, weights)
    _, (first, second) = gru.over(gru.start(), jnp.array([[1.0], [0.0]]))
    np.testing.assert_allclose(first, 0.5 * np.tanh(1), rtol=1e-6)
    h = 0.5 * np.tanh(1)
    np.testing.assert_allclose(second, 0.5 * np.tanh(h) + 0.5 * h, rtol=1e-6)


def test_linear_attention_reads_shrunk_means_of_what_followed():
    # two situations, told apart sharply by which entry is larger; what is written is the second entry of what follows
    layer = LinearAttention(2, 2, key=jax.random.key(0), layers=1, heads=1).layers[0]
    zero, second = jnp.zeros(2), jnp.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    layer = put(
        layer,
        [
            *(jnp.array([[50.0, -50.0], [-50.0, 50.0]]), zero),
            *(second, zero),
            *(jnp.zeros((4, 2)), zero + 1),
            *(jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), zero),  # the value and the count are what is said
            *(jnp.zeros((2, 4)), jnp.zeros(4)),
            *(jnp.zeros((4, 2)), zero),
        ],
    )
    x = jnp.array([[1.0, 0.0], [0.0, 7.0], [3.0, 0.0]])
    said, store = layer(jnp.zeros(2), jnp.zeros((1, 2, 3)), x)
    # the first follows nothing, which is half like either; 7 follows a situation that the third is like
    np.testing.assert_allclose(said - x, [[0, 0.5 / 1.5], [0, 0.5 / 1.5], [7 / 2.5, 1.5 / 2.5]], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(store[0, :, 1:], [[7, 1.5], [0, 1.5]], rtol=1e-5)


def test_distributions_are_those_of_scipy():
    p = np.array([0.2, 0.5, 0.3])
    categorical = Categorical(jnp.log(p))
    np.testing.assert_allclose(categorical.log_probability(jnp.array(2)), np.log(0.3), rtol=1e-6)
    np.testing.assert_allclose(categorical.log_probabilities(), np.log(p), rtol=1e-6)
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
    with pytest.raises(ValueError, match="one of gru, mingru, attention, none, got 'lstm'"):
        ActorCritic(3, 2, key=jax.random.key(0), memory="lstm")
