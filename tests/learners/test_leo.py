"""LEO's parts against loops written from the paper."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import Blobs, key, number

from metatower import Constant, Positive, adam, clip, lift
from metatower.core import names, value
from metatower.learners.leo import leo
from metatower.nets import Examples
from metatower.training import train

pytestmark = pytest.mark.usefixtures("quick_compile")
X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
Y = np.array([0, 0, 1, 1, 2])
SUPPORT = Examples(jnp.asarray(X), jnp.asarray(Y), ways=jnp.ones(3, bool))


def identity(x):
    return x


def small(**options):
    return leo(Constant(identity), 3, key=jax.random.key(1), latent=4, **options)


def without_steps():
    return small(latent_steps=0, weight_steps=0, sampling=False)


def latents(learner):
    """Means and deviations of the classes, pair by pair."""
    codes = X @ np.asarray(learner.encoder)
    rows = np.zeros((5, 8))
    for i in range(5):
        for j in range(5):
            h = np.concatenate([codes[i], codes[j]])
            for layer in learner.relation[:-1]:
                h = np.maximum(h @ np.asarray(layer), 0)
            rows[i] += h @ np.asarray(learner.relation[-1]) / 5
    means = np.stack([rows[k == Y].mean(axis=0) for k in range(3)])
    return means[:, :4], np.maximum(np.exp(means[:, 4:]) - 1, 1e-10)


def test_encoder_relation_decoder_and_kl_by_hand():
    learner = without_steps()
    state = learner.adapt(SUPPORT, key=key(0))
    z, spread = latents(learner)
    np.testing.assert_allclose(state.weights, (z @ np.asarray(learner.decoder))[:, :3], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.kl, np.mean(-np.log(spread) + 0.5 * z**2), rtol=1e-4)
    assert state.drift == 0


def test_the_terms_of_the_loss():
    learner = small(sampling=False, kl=2.0, stopgrad=3.0, l2=0.5, orthogonality=0.7)
    state = learner.adapt(SUPPORT, key=key(0))
    total, m = learner.loss(state, SUPPORT, key=key(1))
    d = np.asarray(learner.decoder)
    rows = d / np.linalg.norm(d, axis=1, keepdims=True)
    np.testing.assert_allclose(m["orthogonality"], np.mean((rows @ rows.T - np.eye(4)) ** 2), rtol=1e-4)
    every = [learner.encoder, *learner.relation, learner.decoder]
    np.testing.assert_allclose(m["l2"], 0.5 * sum(np.sum(np.asarray(w) ** 2) for w in every), rtol=1e-4)
    assert m["stopgrad"] > 0
    expected = m["cross_entropy"] + 2 * m["kl"] + 3 * m["stopgrad"] + 0.5 * m["l2"] + 0.7 * m["orthogonality"]
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_steps_move_first_the_latents_then_the_weights_down_the_summed_loss():
    learner = small(latent_steps=1, weight_steps=1, sampling=False)
    z, _ = map(jnp.asarray, latents(learner))
    x = jnp.asarray(X)

    def loss(w):  # the sum over examples, divided by the mean number per class
        return -jnp.sum(jax.nn.log_softmax(x @ w.T)[jnp.arange(5), Y]) / (5 / 3)

    def decode(z):
        return (z @ learner.decoder)[:, :3]

    z = z - value(learner.latent_rate) * jax.grad(lambda z: loss(decode(z)))(z)
    w = decode(z)
    w = w - value(learner.weight_rate) * jax.grad(loss)(w)
    np.testing.assert_allclose(learner.adapt(SUPPORT, key=key(0)).weights, w, rtol=1e-4, atol=1e-5)


def test_sampling_is_of_the_latents_distribution():
    learner = dataclasses.replace(without_steps(), sampling=True, dropout=0.0)
    every = jax.jit(jax.vmap(lambda k: learner.adapt(SUPPORT, key=k).kl))(jax.random.split(jax.random.key(0), 2000))
    z, s = latents(learner)
    closed = np.mean(-np.log(s) - 0.5 + 0.5 * (s**2 + z**2))
    assert abs(np.mean(every) - closed) < 5 * np.std(every) / 2000**0.5
    assert np.std(every) > 0


@pytest.mark.parametrize("sampling", [False, True])
def test_padding_changes_nothing(sampling):
    learner = small(sampling=sampling, dropout=0.0)
    x, y = np.full((8, 3), 9.0, np.float32), np.array([0, 0, 1, 1, 2, 2, 3, 4])
    x[:5] = X
    weight = jnp.asarray(np.arange(8) < 5, jnp.float32)
    padded = Examples(jnp.asarray(x), jnp.asarray(y), weight, jnp.arange(5) < 3)
    one, two = (learner.adapt(support, key=key(0)) for support in (SUPPORT, padded))
    np.testing.assert_allclose(one.weights, two.weights[:3], rtol=1e-4, atol=1e-5)
    got, want = learner.loss(two, padded, key=key(1)), learner.loss(one, SUPPORT, key=key(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, want)


def test_it_learns_everything_but_the_features_and_improves():
    learner = leo(Constant(identity), 2, key=jax.random.key(1), latent=8, dropout=0.0, kl=1e-3)
    learner = dataclasses.replace(learner, latent_rate=Positive(jnp.full(8, 0.1)))
    assert not any(name.startswith("net") for name in names(learner))
    trainer = lift(learner, clip(adam(3e-3), 0.1), batch=8)
    tasks = Blobs(number(0.3))
    state = train(trainer, tasks, steps=100, seed=0)
    before, after = (
        np.mean([float(trainer.loss(s, tasks, key=jax.random.key(i))[1]["cross_entropy"]) for i in range(8)])
        for s in (trainer.start(key=jax.random.key(0)), state)
    )
    assert after < 0.9 * before
