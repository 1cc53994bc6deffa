import jax
import jax.numpy as jnp
import numpy as np

from metatower import Positive, adam, lift
from metatower.core import names
from metatower.evaluation.episodes import Fixed
from metatower.learners import NearestNeighbour
from metatower.nets import Examples
from metatower.tasks.episodes import Episodes


def test_it_says_the_class_of_the_most_similar_example():
    learner = NearestNeighbour()
    support = Examples(jnp.array([[1.0, 0.0], [0.0, 1.0], [0.2, 1.0]]), jnp.array([0, 1, 1]), ways=jnp.ones(2, bool))
    query = Examples(jnp.array([[5.0, 1.0], [1.0, 5.0], [3.0, 0.1]]), jnp.array([0, 1, 1]))
    state = learner.adapt(support, key=jax.random.key(0))
    loss, metrics = learner.loss(state, query, key=jax.random.key(1))
    np.testing.assert_allclose(metrics["accuracy"], 2 / 3, rtol=1e-6)
    # by hand: cosines to the nearest example of each class, ten times them as logits
    x = np.array([[5.0, 1.0], [1.0, 5.0], [3.0, 0.1]])
    unit = np.array([[1.0, 0.0], [0.0, 1.0], [0.2, 1.0]])
    cosine = x @ (unit / np.linalg.norm(unit, axis=1, keepdims=True)).T / np.linalg.norm(x, axis=1, keepdims=True)
    logits = 10 * np.stack([cosine[:, 0], cosine[:, 1:].max(axis=1)], axis=1)
    right = logits[np.arange(3), [0, 1, 1]]
    np.testing.assert_allclose(loss, np.mean(np.log(np.exp(logits).sum(axis=1)) - right), rtol=1e-5)


def test_only_an_array_is_learned_and_it_lifts_twice():
    assert names(NearestNeighbour()) == []
    pool = np.random.default_rng(0).integers(0, 255, (12, 4, 6, 6), dtype=np.uint8)
    tasks = Episodes(pool, np.full(12, 4), ways=3, shots=1, queries=2)
    trainer = lift(NearestNeighbour(sharpness=Positive(5.0)), adam(0.1), batch=2, steps=2)
    state, metrics = trainer.update(trainer.start(key=jax.random.key(0)), tasks, key=jax.random.key(1))
    assert jnp.isfinite(metrics["loss"])
    assert not jnp.array_equal(state.leaves[0], jnp.log(5.0))
    top = lift(trainer, adam(0.1), batch=2)
    above = top.update(top.start(key=jax.random.key(0)), Fixed(tasks, tasks), key=jax.random.key(1))[1]
    assert jnp.isfinite(above["loss"])
