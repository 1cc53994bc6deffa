"""The learners on features: closed forms by hand, and padding that changes nothing."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from tests.contract import CLASSIFIERS
from tests.toys import Blobs, Tanh, embedding, key, number

from metatower import Task, Tasks
from metatower.core import Expected, pick, put
from metatower.learners import (
    R2D2,
    FullContext,
    ImplicitMAML,
    LogisticRegression,
    MatchingNetwork,
    NearestCentroid,
    PrototypicalNetwork,
    maml,
    maml_plus_plus,
    self_referential,
)
from metatower.nets import Examples, Linear, Supervised, batch_norm, cross_entropy, with_norm

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")
THREE = jnp.ones(3, bool)


def features(n=7, seed=0, size=4):
    return np.random.default_rng(seed).normal(size=(n, size))


Y = np.array([0, 0, 1, 1, 1, 2, 2])


def answers(learner, x=None, query=None):
    state = learner.adapt(Examples(jnp.asarray(features() if x is None else x), jnp.asarray(Y), ways=THREE), key=key(0))
    query = features(5, 1) if query is None else query
    return np.asarray(learner.predict(state, Examples(jnp.asarray(query), jnp.zeros(5, int), ways=THREE)))


def identity(x):
    return x


def means(x):
    return np.stack([x[k == Y].mean(axis=0) for k in range(3)])


def length_one(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_prototypes_by_hand():
    x, q = features(), features(5, 1)
    expected = -((q[:, None] - means(x)) ** 2).sum(axis=-1)
    np.testing.assert_allclose(answers(PrototypicalNetwork(identity)), expected, rtol=1e-9)
    cosine = 3 * length_one(q) @ length_one(means(x)).T
    np.testing.assert_allclose(answers(PrototypicalNetwork(identity, "cosine", 3.0)), cosine, rtol=1e-9)


def test_centroids_by_hand():
    x, q = length_one(features() - 0.3), length_one(features(5, 1) - 0.3)
    expected = -2 * ((q[:, None] - means(x)) ** 2).sum(axis=-1)
    np.testing.assert_allclose(answers(NearestCentroid(identity, 0.3, 2.0)), expected, rtol=1e-9)


def test_matching_by_hand_and_its_attention_sums_to_one():
    learner = MatchingNetwork(identity, 2.0)
    a = np.exp(2 * length_one(features(5, 1)) @ length_one(features()).T)
    a /= a.sum(axis=1, keepdims=True)
    p = np.stack([a[:, k == Y].sum(axis=1) for k in range(3)], axis=1)
    np.testing.assert_allclose(jax.nn.softmax(answers(learner)), p, rtol=1e-9)
    state = learner.adapt(Examples(jnp.asarray(features()), jnp.asarray(Y), ways=THREE), key=key(0))
    got = learner.attention(state.head, jnp.asarray(features(5, 1)))
    np.testing.assert_allclose(got, a, rtol=1e-9)
    np.testing.assert_allclose(got.sum(axis=1), 1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(cell, x, h, c):
    gates = np.asarray(cell.weight_ih) @ x + np.asarray(cell.weight_hh) @ h + np.asarray(cell.bias)
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def test_full_context_by_hand():
    context, x, q = FullContext(4, 3, key=key(2)), features(), features(1, 1)[0]
    ahead, back = np.zeros((2, 7, 4))
    h = c = np.zeros(4)
    for i in range(7):
        ahead[i], c = h, c = lstm(context.ahead, x[i], h, c)
    h = c = np.zeros(4)
    for i in reversed(range(7)):
        back[i], c = h, c = lstm(context.back, x[i], h, c)
    g = ahead + back + x
    np.testing.assert_allclose(context.support(jnp.asarray(x), jnp.ones(7)), g, rtol=1e-9)
    h = c = r = np.zeros(4)
    for _ in range(3):
        h, c = lstm(context.look, np.concatenate([q, r]), h, c)
        h = h + q
        a = np.exp(g @ h)
        r = a @ g / a.sum()
    got = context.query(jnp.asarray(q)[None], jnp.asarray(g), jnp.ones(7))
    np.testing.assert_allclose(got[0], h, rtol=1e-9)


@pytest.mark.parametrize("size", [3, 40])  # fewer numbers than examples, and more
def test_ridge_solves_the_normal_equations(size):
    x, q = (np.hstack([features(n, s, size), np.ones((n, 1))]) for n, s in ((7, 0), (5, 1)))
    w = np.linalg.solve(x.T @ x / 7 + 0.2 * np.eye(size + 1), x.T @ np.eye(3)[Y] / 7)
    got = answers(R2D2(identity, 0.2, 3.0, -0.5), x[:, :-1], q[:, :-1])
    np.testing.assert_allclose(got, 3 * q @ w - 0.5, rtol=1e-7)


def test_logistic_regression_is_at_the_minimum():
    x = length_one(features())

    def objective(w):
        w = w.reshape(5, 3)
        z = x @ w[:-1] + w[-1]
        fit = np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(7), Y])
        return fit + 0.5 * 0.7 / 7 * np.sum(w[:-1] ** 2)

    best = scipy.optimize.minimize(objective, np.zeros(15), method="BFGS", options={"gtol": 1e-8}, tol=1e-10)
    w = best.x.reshape(5, 3)
    expected = length_one(features(5, 1)) @ w[:-1] + w[-1]
    got = answers(LogisticRegression(identity, 0.7, iterations=300))
    centred = [z - z.mean(axis=1, keepdims=True) for z in (got, expected)]
    np.testing.assert_allclose(*centred, atol=2e-4)


# Unequal sizes.


class Once(Tasks):
    task: Task

    def sample(self, key):
        return self.task


def ragged_task():
    """Three ways of 2, 1 and 3 shots; the same task among five ways of 3 shots, with rubbish in the padding."""
    rng = np.random.default_rng(3)
    shots, centre = (2, 1, 3), rng.normal(size=(3, 2)) * 2
    support = [c + rng.normal(size=(s, 2)) for c, s in zip(centre, shots, strict=True)]
    query = [c + rng.normal(size=(4, 2)) for c in centre]

    def plain(parts):
        y = np.repeat(np.arange(3), [len(part) for part in parts])
        return Examples(jnp.asarray(np.concatenate(parts)), jnp.asarray(y), ways=THREE)

    def padded(parts, each):
        x, weight = np.full((5, each, 2), 7.0), np.zeros((5, each))
        for k, part in enumerate(parts):
            x[k, : len(part)], weight[k, : len(part)] = part, 1
        y = np.repeat(np.arange(5), each)
        return Examples(*map(jnp.asarray, (x.reshape(-1, 2), y, weight.reshape(-1), np.arange(5) < 3)))

    return Task(plain(support), plain(query)), Task(padded(support, 3), padded(query, 5))


def learner_of(name, net):
    make = {"imaml": ImplicitMAML, "maml": maml}.get(name.split(",")[0], maml_plus_plus)
    return make(Supervised(net, cross_entropy), 0.2, steps=2)


@pytest.mark.parametrize("mode", ["transductive", "support"])
# see test_leo; a meta-GAN learns distributions, not tasks
@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name != "leo" and not name.startswith("meta-gan")])
def test_padding_changes_nothing(name, mode):
    learner, (plain, padded) = CLASSIFIERS[name](), ragged_task()
    if "maml" in name or name == "self-referential":  # these have room for five whatever the task
        head = Tanh(Linear(2, 5, key=key(7)), batch_norm(5, "support"))
        rewriting = self_referential(2, 5, key=key(5), units=3, hidden=(2,), criterion=cross_entropy)
        learner = learner_of(name, head) if "maml" in name else rewriting
        plain = eqx.tree_at(lambda t: (t.support.ways, t.query.ways), plain, (padded.query.ways,) * 2)
    objective = Expected(with_norm(learner, mode))

    @jax.jit
    def scored(task):
        def loss(leaves):
            return put(objective, leaves).loss(Once(task), key=key(1))

        return jax.value_and_grad(loss, has_aux=True)(pick(objective))

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10), scored(plain), scored(padded))


def test_a_learner_trained_on_many_ways_answers_among_few():
    learner = CLASSIFIERS["prototypical"]()
    plain, _ = ragged_task()
    two = jnp.flatnonzero(plain.support.y < 2)
    few = Examples(plain.support.x[two], plain.support.y[two], ways=jnp.ones(2, bool))
    for support, ways in ((plain.support, 3), (few, 2)):
        assert learner.predict(learner.adapt(support, key=key(0)), plain.query).shape == (12, ways)


def test_labels_without_examples_are_no_answers():
    _, padded = ragged_task()
    learner = PrototypicalNetwork(embedding())
    got = learner.predict(learner.adapt(padded.support, key=key(0)), padded.query)
    assert jnp.all(jnp.isneginf(got[:, 3:]))
    assert jnp.all(jnp.isfinite(got[:, :3]))


def test_how_many_labels_there_are_must_be_said():
    task = Blobs(number(0.5)).sample(key(0))
    with pytest.raises(ValueError, match="must be told how many"):
        PrototypicalNetwork(embedding()).adapt(dataclasses.replace(task.support, ways=None), key=key(0))
    with pytest.raises(Exception, match=r"euclidean|Type-check error"):
        PrototypicalNetwork(embedding(), "manhattan")  # ty: ignore


def test_support_statistics_do_not_look_at_other_queries():
    task = Blobs(number(0.5)).sample(key(0))
    other = eqx.tree_at(lambda q: q.x, task.query, task.query.x.at[1:].multiply(3.0))
    for mode, moves in (("support", False), ("transductive", True)):
        learner = with_norm(PrototypicalNetwork(embedding()), mode)
        state = learner.adapt(task.support, key=key(0))
        first = [learner.predict(state, query)[0] for query in (task.query, other)]
        assert bool(jnp.all(first[0] == first[1])) is not moves
