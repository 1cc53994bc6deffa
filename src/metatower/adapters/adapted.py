"""A learner that has adapted to examples of a few classes, as it is used outside of training: from arrays to arrays."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int

from metatower.core import Learner, Objective, State
from metatower.core.errors import UserError
from metatower.evaluation.diagnosis import answers
from metatower.learners.features import FeatureLearner
from metatower.learners.nearest import flat
from metatower.nets import Examples, Supervised
from metatower.nets.norm import norms, with_norm

BATCH = 128
"""Inputs that are answered at the same time."""


@dataclass(frozen=True)
class Adapted:
    """A learner and the examples that it has learned from.

    Args:
        learner: of classes. Norms in the mode "transductive" are set to "support": an answer must not depend on what
            else is asked.
        inputs: `[n, ...]`, as the learner takes them.
        labels: `[n]`, from 0.
        ways: how many classes there are.
        seed: for learners that draw random numbers.
    """

    learner: Learner
    inputs: Float[np.ndarray, "n ..."]
    labels: Int[np.ndarray, " n"]
    ways: int
    seed: int = 0

    @cached_property
    def _learner(self) -> Any:
        open_to_others = any(norm.mode == "transductive" for norm in norms(self.learner))
        return with_norm(self.learner, "support") if open_to_others else self.learner

    @cached_property
    def state(self) -> State:
        """What the learner knows of these examples.

        Raises:
            UserError: more classes than the learner has outputs, or inputs that its network cannot take.
        """
        with self._understood():
            return _adapt(self._learner, self._support, jax.random.key(self.seed))

    def probabilities(self, inputs: Float[np.ndarray, "m ..."]) -> Float[np.ndarray, "m way"]:
        """Of each class, for each input; rows sum to 1."""
        found = []
        for first in range(0, len(inputs), BATCH):
            part = inputs[first : first + BATCH]
            scores = _scores(self._learner, self.state, _padded(part, _room(len(part))))
            found.append(np.asarray(scores)[: len(part), : self.ways])
        scores = np.concatenate(found).astype(np.float64)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def shares(self, inputs: Float[np.ndarray, "m ..."]) -> Float[np.ndarray, "m n way"]:
        """What each example adds to the score of each class (`FeatureLearner.shares`).

        Raises:
            UserError: the answers of this learner are no sum over examples.
        """
        if not isinstance(self.learner, FeatureLearner):
            raise UserError(f"The answers of {type(self.learner).__name__} are no sum over examples.")
        try:
            shares = _explain(self._learner, self.state, self._support, _padded(inputs, _room(len(inputs))))
        except NotImplementedError as error:
            raise UserError(str(error)) from error
        return np.asarray(shares)[: len(inputs), : len(self.labels), : self.ways]

    @property
    def _support(self) -> Examples:
        # room for more where a learner takes any number: fewer shapes, fewer compilations
        ways = self._outputs or _room(self.ways)
        if self.ways > ways:
            raise UserError(
                f"This learner tells {ways} classes apart, and there are {self.ways}. Take fewer, or one that takes "
                "any number, such as 'prototypical' or 'nearest-centroid'."
            )
        size = _room(len(self.inputs)) if _passes_by_padding(self.learner) else len(self.inputs)
        return _padded(self.inputs, size, self.labels, np.arange(ways) < self.ways)

    @property
    def _outputs(self) -> int | None:
        """How many classes the network of the learner tells apart; None if any number."""
        start = eqx.filter_eval_shape(self._learner.start, key=jax.random.key(self.seed))
        if start is None:
            return None
        return eqx.filter_eval_shape(answers, self._learner, start, _padded(self.inputs[:1], 1)).shape[-1]

    @contextmanager
    def _understood(self) -> Generator[None, None, None]:
        try:
            yield
        except UserError:
            raise
        except (TypeError, ValueError, IndexError) as error:  # what shapes that do not fit end in
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"This learner cannot learn from inputs of shape {self.inputs.shape[1:]}: {reason}. Give it such as it "
                "was trained on."
            ) from error


def for_vectors(learner: Learner) -> Learner:
    """The learner without its network, for inputs that are features already.

    Raises:
        UserError: it is nothing without one.
    """
    if not isinstance(learner, FeatureLearner):
        return learner
    if getattr(learner, "context", None) is not None:
        raise UserError("The full-context embeddings of this learner are for the features of its own network only.")
    return eqx.tree_at(lambda learner: learner.net, learner, flat)


def _passes_by_padding(learner: Any) -> bool:
    if isinstance(learner, FeatureLearner):
        return True
    objective = getattr(learner, "objective", None)
    # by its exact type: what an objective of another kind makes up from its inputs would be made from padding too
    return isinstance(objective, Objective) and type(objective.as_judge()) is Supervised


def _room(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()


def _padded(inputs: np.ndarray, size: int, labels: np.ndarray | None = None, ways: np.ndarray | None = None):
    more = size - len(inputs)
    x = np.pad(np.asarray(inputs, np.float32), [(0, more), *[(0, 0)] * (inputs.ndim - 1)])
    y = np.zeros(size, np.int32) if labels is None else np.pad(labels.astype(np.int32), (0, more))
    weight = (np.arange(size) < len(inputs)).astype(np.float32)
    x, y, weight, ways = jax.tree.map(jax.numpy.asarray, (x, y, weight, ways))
    return Examples(x, y, weight, ways)


@eqx.filter_jit
def _adapt(learner: Learner, support: Examples, key: Any) -> State:
    return learner.adapt(support, key=key)


@eqx.filter_jit
def _scores(learner: Any, state: State, data: Examples) -> Float[Array, "n way"]:
    return answers(learner, state, data)


@eqx.filter_jit
def _explain(learner: Any, state: State, support: Examples, data: Examples) -> Float[Array, "n m way"]:
    return learner.explain(state, support, data)
