"""Forward mode."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray

from metatower.core import Gradient, Learner, Scored, State, Task
from metatower.core.gradient import score


class ForwardMode(Gradient):
    """Exact, one Jacobian-vector product per learned number; memory constant in the length of the run.

    For storeys that learn few numbers (about eight or fewer: rates, decays), where reverse mode would have to
    store or recompute a long run (Franceschi et al. 2017, "Forward and reverse gradient-based hyperparameter
    optimization").
    """

    def evaluations(self, size: int) -> int:
        return size + 1

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        return score(learner, task, key=key)

    def estimate(self, loss, leaves, state: State, *, key: PRNGKeyArray):
        flat, unravel = ravel_pytree(leaves)

        def along(direction):
            return jax.jvp(lambda v: loss(unravel(v), key), (flat,), (direction,), has_aux=False)

        def slope(direction):
            _, (tangent, _) = along(direction)
            return tangent

        gradient = jax.lax.map(slope, jnp.eye(flat.size, dtype=flat.dtype))
        return loss(leaves, key), unravel(gradient), state
