"""Does a learner learn from its support set, with which layers, and does it know how sure it may be?"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from metatower.core import Descend, Learner, State, Task, Tasks, value
from metatower.core.errors import UserError
from metatower.core.keys import fork
from metatower.evaluation.episodes import episode_keys
from metatower.nets import Examples, Supervised, forward
from metatower.rules import only


class Shuffled(Tasks):
    """The same tasks, but the labels of each support set are dealt to its examples at random.

    A learner that still does well has remembered the classes, and learns nothing from the support set (Yin et al. 2020,
    "Meta-Learning without Memorization", https://arxiv.org/abs/1912.03820).
    """

    tasks: Tasks

    def sample(self, key: PRNGKeyArray) -> Task:
        task = self.tasks.sample(key)
        order = jax.random.permutation(jax.random.fold_in(key, 1), len(task.support.y))
        return Task(dataclasses.replace(task.support, y=task.support.y[order]), task.query)


def head_and_body(learner: Any) -> tuple[Learner, Learner] | None:
    """The learner with only its last layer moving on a task, and with all but the last; None if it does not descend.

    Raghu et al. 2020, "Rapid Learning or Feature Reuse?", https://arxiv.org/abs/1909.09157: if the first is as good as
    the learner itself, the task is solved by features that were there before (ANIL).
    """
    objective = getattr(learner, "objective", None)
    net = getattr(getattr(objective, "objective", objective), "net", None)
    if not isinstance(learner, Descend) or net is None or learner.learn is not None:
        return None
    last = net.layers[-1] if hasattr(net, "layers") else getattr(net, "head", None)
    if last is None:
        return None
    in_head = {id(leaf) for leaf in jax.tree.leaves(last)}
    # a state holds the leaves in the order in which they move
    moves = tuple(id(leaf) in in_head for leaf in jax.tree.leaves(eqx.filter(net, eqx.is_inexact_array)))
    if not any(moves) or len(moves) != len(learner.start(key=jax.random.key(0)).leaves):
        return None
    opposite = tuple(not each for each in moves)
    head, body = (dataclasses.replace(learner, rule=only(learner.rule, each)) for each in (moves, opposite))
    return head, body


def answers(learner: Any, state: State, data: Examples) -> Float[Array, "n way"]:
    """The logits of a learner of classes that has adapted.

    Raises:
        UserError: it has no network whose answers could be asked for.
    """
    if hasattr(learner, "predict"):
        return learner.predict(state, data)
    judge = learner.judge(state)
    if not isinstance(judge, Supervised):
        raise UserError(f"{type(learner).__name__} has no network whose answers could be asked for.")
    return forward(judge.net, data.x, data.weight, value(judge.given))[0]


def confidences(
    learner: Learner, tasks: Tasks, *, episodes: int, seed: int
) -> tuple[Float[np.ndarray, "episode query"], Bool[np.ndarray, "episode query"]]:
    """The probability of the best class of every query, and whether it was right."""

    @eqx.filter_jit
    def one(learner, tasks, key):
        key_task, key_adapt, _ = fork(key, 3)
        task = tasks.sample(key_task)
        logits = answers(learner, learner.adapt(task.support, key=key_adapt), task.query)
        if task.query.ways is not None:
            more = logits.shape[-1] - len(task.query.ways)
            logits = jnp.where(jnp.pad(task.query.ways, (0, more)), logits, -jnp.inf)
        return jnp.max(jax.nn.softmax(logits), axis=-1), jnp.argmax(logits, axis=-1) == task.query.y

    found = [one(learner, tasks, key) for key in episode_keys(seed, 0, episodes)]
    sure, right = (np.stack([np.asarray(each[i]) for each in found]) for i in (0, 1))
    return sure, right


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How often a learner is right where it says that it is so sure (Guo et al. 2017, arXiv 1706.04599)."""

    error: float
    """Expected calibration error, from 0 to 1: the mean gap between confidence and accuracy."""
    confidence: Float[np.ndarray, " bins"]
    accuracy: Float[np.ndarray, " bins"]
    count: np.ndarray
    """Answers in each bin; bins without any are left out."""


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> Calibration:
    """The calibration of answers, in bins of equal width.

    >>> calibration(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False])).error
    0.1
    """
    confidence, right = np.ravel(confidence).astype(np.float64), np.ravel(right)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    there = count > 0
    means = np.bincount(place, confidence, bins)[there] / count[there]
    hits = np.bincount(place, right, bins)[there] / count[there]
    error = float(np.sum(count[there] * np.abs(means - hits)) / len(confidence))
    return Calibration(round(error, 12), means, hits, count[there])


def similarity(learner: Any, tasks: Tasks, *, episodes: int, seed: int) -> Float[np.ndarray, "episode layer"] | None:
    """How alike each layer's outputs on the query are before and after adaptation: linear CKA, 1 where nothing changed.

    Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", https://arxiv.org/abs/1905.00414,
    as used by Raghu et al. 2020. None for learners whose network does not move.
    """
    net = getattr(getattr(learner, "objective", None), "net", None)
    net = net or getattr(getattr(getattr(learner, "objective", None), "objective", None), "net", None)
    if not isinstance(learner, Descend) or not hasattr(net, "activations"):
        return None

    @eqx.filter_jit
    def one(learner, tasks, key):
        key_task, key_adapt, _ = fork(key, 3)
        task = tasks.sample(key_task)
        # both in the light of the support set, where norms ask for one
        before = learner.objective.after(learner.objective.seen(task.support)).as_judge()
        after = learner.judge(learner.adapt(task.support, key=key_adapt))
        pairs = zip(*(each.net.activations(task.query.x, value(each.given)) for each in (before, after)), strict=True)
        return jnp.stack([linear_cka(x, y) for x, y in pairs])

    return np.stack([np.asarray(one(learner, tasks, key)) for key in episode_keys(seed, 0, episodes)])


def linear_cka(x: Float[Array, "n ..."], y: Float[Array, "n ..."]) -> Float[Array, ""]:
    """Linear centred kernel alignment of two sets of features of the same examples, 0 to 1."""
    x, y = (each - jnp.mean(each, axis=0) for each in (x.reshape(len(x), -1), y.reshape(len(y), -1)))
    # by n x n products, as there are far more features than examples
    a, b = x @ x.T, y @ y.T
    return jnp.sum(a * b) / jnp.maximum(jnp.linalg.norm(a) * jnp.linalg.norm(b), 1e-12)
