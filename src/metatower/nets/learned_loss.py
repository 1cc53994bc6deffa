"""A loss that is learned: what a learner descends on a task, and not what it is judged by."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metatower.core import Objective, Scored, pick
from metatower.nets.supervised import Examples, Supervised, mean


class LearnedLoss(Objective):
    """The loss of a network plus a learned function of each prediction, its target, and the state of the task.

    Baik, Choi, Kim, Cho, Min & Lee 2021, "Meta-Learning with Task-Adaptive Loss Function" (MeTAL),
    https://arxiv.org/abs/2110.03909, section 3.2:

        L(θ; S) = ℓ(θ; S) + mean_i h([ŷ_i, y_i, τ]),    τ = [log ℓ(θ; S), mean of every leaf of θ]

    with h a network of one hidden layer whose output is nought until it is learned. A run is judged by ℓ alone.
    A learner on it moves the network's leaves only: `Descend(LearnedLoss(...), rule, learn=lambda o: o.objective)`; h
    is for the storeys above. Make it with `learned_loss`.

    Differs from the paper in: the learned part is added to the plain loss, so that it starts there; it has no affine
    transformation of its own for each step; unlabelled queries are not used.
    """

    objective: Supervised
    first: Float[Array, "features units"]
    bias: Float[Array, " units"]
    second: Float[Array, " units"]

    def loss(self, data: Examples, *, key: PRNGKeyArray) -> Scored:
        plain, metrics = self.objective.loss(data, key=key)
        answer = self.objective.net(data.x)
        target = data.y
        if jnp.issubdtype(target.dtype, jnp.integer):
            answer, target = jax.nn.softmax(answer), jax.nn.one_hot(target, answer.shape[-1])
        weights = jnp.stack([jnp.mean(leaf) for leaf in pick(self.objective)])
        task = jnp.concatenate([(jnp.arcsinh(50 * plain) / 2 - 1)[None], weights])
        seen = [answer.reshape(len(answer), -1), target.reshape(len(answer), -1)]
        seen.append(jnp.broadcast_to(task, (len(answer), len(task))))
        says = jnp.tanh(jnp.concatenate(seen, axis=1) @ self.first + self.bias) @ self.second
        return plain + mean(says, data.weight), metrics

    @property
    def net(self) -> Any:
        """The network."""
        return self.objective.net

    def as_judge(self) -> Objective:
        return self.objective.as_judge()

    def seen(self, data: Examples | None) -> PyTree:
        return self.objective.seen(data)

    def after(self, seen: PyTree) -> "LearnedLoss":
        return dataclasses.replace(self, objective=self.objective.after(seen))


def learned_loss(objective: Supervised, outputs: int, *, key: PRNGKeyArray, units: int = 16) -> LearnedLoss:
    """A fresh `LearnedLoss`, which is the loss of `objective`.

    Args:
        outputs: numbers in a prediction, and in a target (labels count as one-hot vectors).
        units: of h's hidden layer.
    """
    features = 2 * outputs + 1 + len(pick(objective))
    first = jax.random.normal(key, (features, units)) / features**0.5
    return LearnedLoss(objective, first, jnp.zeros(units), jnp.zeros(units))
