"""Reptile."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from metatower.core import Gradient, Learner, Scored, Task, run
from metatower.core.keys import fork


class Reptile(Gradient):
    """Moves the start of the inner run towards its end: gradient = mean over tasks of (s₀ − s_T).

    Nichol, Achiam & Schulman 2018, equation 1: φ ← φ + ε (φ̃ − φ), which is `sgd(ε)` on this gradient. No
    derivative of any kind crosses the run. It is taken as the derivative of ½‖s₀(φ) − s_T‖² with s_T held
    fixed, so it is defined for any learner whose start depends on its leaves; leaves that the start does not
    depend on (rates) get zero.
    """

    of_the_loss: ClassVar[bool] = False

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        key_adapt, key_query = fork(key, 2)
        end = jax.lax.stop_gradient(run(learner, task.support, key=key_adapt))
        loss, metrics = jax.lax.stop_gradient(learner.loss(end, task.query, key=key_query))
        # `run` starts from the first of two keys: the same start, this time with its derivative
        start = learner.start(key=fork(key_adapt, 2)[0])
        pairs = zip(*(jax.tree.leaves(eqx.filter(s, eqx.is_inexact_array)) for s in (start, end)), strict=True)
        pull = sum(0.5 * jnp.sum((s - e) ** 2) for s, e in pairs)
        return loss + pull - jax.lax.stop_gradient(pull), metrics
