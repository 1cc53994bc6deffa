"""The parts of a diagnosis, on learners whose answer is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower import Descend, adam, sgd
from metatower.core.errors import UserError
from metatower.evaluation.diagnosis import (
    Shuffled,
    calibration,
    confidences,
    head_and_body,
    linear_cka,
    similarity,
)
from metatower.evaluation.episodes import evaluate
from metatower.learners import NearestNeighbour
from metatower.nets import MLP, ConvNet, Examples, Supervised, cross_entropy
from metatower.tasks.episodes import Episodes

pytestmark = pytest.mark.usefixtures("quick_compile")


def tasks(shots=2):
    """Classes that differ by shade, easily told apart."""
    shades = np.linspace(20, 230, 8, dtype=np.uint8)
    noise = np.random.default_rng(0).integers(0, 5, (8, 6, 8, 8), dtype=np.uint8)
    grid = np.indices((8, 8)).sum(0) % 8
    pictures = np.where(grid == np.arange(8)[:, None, None, None], shades[:, None, None, None], 0).astype(np.uint8)
    return Episodes(pictures + noise, np.full(8, 6), ways=4, shots=shots, queries=3)


HOW = {"episodes": 40, "seed": 1}


def test_shuffled_labels_bring_a_learner_of_the_support_to_chance():
    learner = NearestNeighbour()
    assert evaluate(learner, tasks(), **HOW)["accuracy"].mean() > 0.95
    assert abs(evaluate(learner, Shuffled(tasks()), **HOW)["accuracy"].mean() - 0.25) < 0.12


def test_shuffled_tasks_keep_pictures_and_queries():
    key = jax.random.key(3)
    plain, dealt = tasks().sample(key), Shuffled(tasks()).sample(key)
    assert (plain.support.x == dealt.support.x).all()
    assert (plain.query.y == dealt.query.y).all()
    assert sorted(plain.support.y.tolist()) == sorted(dealt.support.y.tolist())


@pytest.mark.parametrize("norm", ["transductive", "support"])
def test_only_the_head_or_only_the_body_moves(norm):
    nets = {
        "mlp": MLP((64, 8, 4), key=jax.random.key(0)),
        "conv": ConvNet(4, key=jax.random.key(0), image=(8, 8, 1), channels=(4,), norm=norm),
    }
    data = tasks().sample(jax.random.key(0)).support
    for net in nets.values():
        for rule in (sgd(0.1), adam(0.1)):
            learner = Descend(Supervised(net, cross_entropy), rule, steps=2)
            for each, moving in zip(head_and_body(learner), ("head", "body"), strict=True):
                after = each.result(each.adapt(data, key=jax.random.key(1))).net
                last = lambda net: net.layers[-1] if hasattr(net, "layers") else net.head  # noqa: E731
                assert (last(after).weight != last(net).weight).any() == (moving == "head")
                first = lambda net: net.layers[0].weight if hasattr(net, "layers") else net.blocks[0].conv.weight  # noqa: E731
                assert (first(after) != first(net)).any() == (moving == "body")


def test_a_learner_without_descent_has_neither():
    assert head_and_body(NearestNeighbour()) is None
    assert similarity(NearestNeighbour(), tasks(), **HOW) is None


def test_layers_that_do_not_move_are_the_same_before_and_after():
    net = MLP((64, 16, 4), key=jax.random.key(0))
    learner = Descend(Supervised(net, cross_entropy), sgd(1.0), steps=5)
    head, _ = head_and_body(learner)
    alike = similarity(head, tasks(), episodes=3, seed=0)
    np.testing.assert_allclose(alike[:, 0], 1, atol=1e-5)
    assert (alike[:, 1] < 0.999).all()
    assert (similarity(dataclasses.replace(learner, steps=0), tasks(), episodes=2, seed=0) > 0.9999).all()


def test_cka_forgets_rotation_and_scale_and_no_more():
    random = np.random.default_rng(0)
    x = random.normal(size=(20, 6))
    turned = 3 * x @ np.linalg.qr(random.normal(size=(6, 6)))[0] + 5
    assert float(linear_cka(jnp.asarray(x), jnp.asarray(turned))) == pytest.approx(1, abs=1e-5)
    assert float(linear_cka(jnp.asarray(x), jnp.asarray(random.normal(size=(20, 6))))) < 0.6


def test_calibration_of_the_overconfident_and_the_honest():
    right = np.arange(1000) % 10 < 7
    honest, boastful = calibration(np.full(1000, 0.7), right), calibration(np.full(1000, 0.99), right)
    assert honest.error == pytest.approx(0, abs=1e-9)
    assert boastful.error == pytest.approx(0.29, abs=1e-9)
    assert honest.count.tolist() == [1000]


def test_confidences_are_of_the_answers():
    sure, right = confidences(NearestNeighbour(sharpness=50.0), tasks(), episodes=5, seed=0)
    assert sure.shape == right.shape == (5, 12)
    assert right.mean() > 0.9
    assert ((sure > 0.25) & (sure <= 1)).all()


def test_a_learner_without_answers_says_so():
    class Mute(NearestNeighbour.__mro__[2]):  # a Learner that only has a loss
        def start(self, *, key):
            return None

        def step(self, state, data, *, key):
            return None

        def loss(self, state, data, *, key):
            return jnp.float32(0), {}

    with pytest.raises(UserError, match="Mute has no network"):
        confidences(Mute(), tasks(), episodes=2, seed=0)


def test_examples_without_ways():
    task = tasks().sample(jax.random.key(0))
    bare = Examples(task.support.x, task.support.y)
    learner = Descend(Supervised(MLP((64, 4), key=jax.random.key(0)), cross_entropy), sgd(0.1))
    assert learner.adapt(bare, key=jax.random.key(0)).leaves[0].shape == (64, 4)
