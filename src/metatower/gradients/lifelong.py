"""The loss over a whole life, and not at its end only."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.core import Gradient, Learner, Scored, Task
from metatower.core.keys import fork
from metatower.core.leaves import Constant, value


class Lifelong(Gradient):
    """The exact gradient of the losses that a run meets on its way, and of the one that it is judged by, weighted.

    Duan et al. 2016, "RL²: Fast Reinforcement Learning via Slow Reinforcement Learning",
    https://arxiv.org/abs/1611.02779, section 2.2, where the return of a whole trial is maximised; Andrychowicz et al.
    2016, equation 3, with weights w:

        Σ_j w_j · loss of step j  +  w_end · loss on the query,    j = 1 ... steps

    The loss of step j is the one that the learner's `update` reports; it is met with what was learned in the j − 1
    steps before. Nothing has to be computed for it, whereas `MultiStep` judges the run again after every step. Each
    step is recomputed in the backward pass. The *value* is the loss on the query.

    Args:
        weights: `[steps + 1]`, one for each step of the learner that is crossed and one for the judgement. No storey
            learns them. `rising_weights` makes some.
        logarithm: of the losses, which must be above zero: a run that goes wrong then counts by how many times it is
            worse, and does not drown the others.

    Raises:
        ValueError: another number of weights; a learner whose `update` reports no loss.
    """

    of_the_loss: ClassVar[bool] = False
    weights: Constant
    logarithm: bool = eqx.field(static=True)

    def __init__(self, weights: Float[Array, " steps_and_end"], logarithm: bool = False):
        self.weights = Constant(jnp.asarray(weights, jnp.result_type(float)))
        self.logarithm = logarithm

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        weights = value(self.weights)
        if len(weights) != learner.steps + 1:
            raise ValueError(
                f"Lifelong: expected {learner.steps + 1} weights, for {learner.steps} steps and the judgement, "
                f"got {len(weights)}."
            )
        # the keys of `run` and of `core.gradient.score`
        key_adapt, key_query = fork(key, 2)
        key_start, key_steps = fork(key_adapt, 2)

        @jax.checkpoint
        def body(state, key):
            state, metrics = learner.update(state, task.support, key=key)
            if "loss" not in metrics:
                raise ValueError(f"Lifelong: `update` of {type(learner).__name__} reports no `loss` of its step.")
            return state, metrics["loss"]

        state, losses = jax.lax.scan(body, learner.start(key=key_start), fork(key_steps, learner.steps))
        end, metrics = learner.loss(state, task.query, key=key_query)
        measure = jnp.log if self.logarithm else lambda loss: loss
        weighted = measure(losses) @ weights[:-1] + measure(end) * weights[-1]
        return jax.lax.stop_gradient(end) + weighted - jax.lax.stop_gradient(weighted), metrics


def rising_weights(steps: int, factor: float = 3.0) -> Float[Array, " steps_and_end"]:
    """Weights for `Lifelong` that rise linearly to `factor` times the first and sum to 1.

    >>> [round(float(weight), 4) for weight in rising_weights(2, 3.0)]
    [0.1667, 0.3333, 0.5]
    """
    weights = jnp.linspace(1.0, factor, steps + 1)
    return weights / jnp.sum(weights)
