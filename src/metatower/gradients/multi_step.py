"""The multi-step loss of MAML++."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.core import Gradient, Learner, Scored, Task
from metatower.core.keys import fork
from metatower.core.leaves import Constant, value


class MultiStep(Gradient):
    """The exact gradient of the query loss after *every* inner step, weighted.

    Antoniou, Edwards & Storkey 2019, "How to train your MAML", https://arxiv.org/abs/1810.09502, equation 5:

        ∇θ Σ_i w_i L_query(θ_i),  i = 1 ... steps

    Gradients reach early steps directly, which steadies a young run. The *value* stays the loss after the last step.
    Let the weights move to the last step as training goes on: `multi_step_weights`; `train` with one set of them
    after the other, from the state where the last ended.

    Args:
        weights: `[steps]`, one for each step of the learner that is crossed.
        learned: whether the storey above the one that descends this gradient may learn them.
    """

    of_the_loss: ClassVar[bool] = False
    weights: Constant | Float[Array, " steps"]

    def __init__(self, weights: Float[Array, " steps"], learned: bool = False):
        numbers = jnp.asarray(weights, jnp.result_type(float))
        self.weights = numbers if learned else Constant(numbers)

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        weights = value(self.weights)
        if len(weights) != learner.steps:
            raise ValueError(f"MultiStep: {len(weights)} weights for a learner of {learner.steps} steps.")
        # the keys of `run` and of `core.gradient.score`
        key_adapt, key_query = fork(key, 2)
        key_start, key_steps = fork(key_adapt, 2)

        def body(state, key):
            state = learner.step(state, task.support, key=key)
            return state, learner.loss(state, task.query, key=key_query)

        keys = fork(key_steps, learner.steps)
        _, (losses, metrics) = jax.lax.scan(body, learner.start(key=key_start), keys)
        weighted = losses @ weights
        return (
            jax.lax.stop_gradient(losses[-1]) + weighted - jax.lax.stop_gradient(weighted),
            jax.tree.map(lambda each: each[-1], metrics),
        )


def multi_step_weights(steps: int, progress: float) -> Float[np.ndarray, " steps"]:
    """The weights of `MultiStep` when so much (0 to 1) of the annealing is done, as in the authors' code.

    All start at 1 / steps; those before the last fall linearly to 0.03 / steps, and the last takes what they lose.

    >>> multi_step_weights(4, 0.0).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    early = max(1 - progress, 0.03) / steps
    return np.array([early] * (steps - 1) + [1 - (steps - 1) * early])
