"""The gradient of each run, clipped before the runs are averaged."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from metatower.core import Gradient, Learner, Scored, Task, Unrolled, pick, put
from metatower.core.gradient import check_scores
from metatower.core.shares import mean_over_devices


class Clipped(Gradient):
    """No run counts more than its share: each one's gradient is scaled to a norm of at most `norm` before the mean.

        mean over tasks of  ∇L · min(1, norm / |∇L|)

    Runs of many steps are chaotic near the rates that suit them best, and their gradients have heavy tails (Metz et al.
    2019, "Understanding and correcting pathologies in the training of learned optimizers", section 3): of a batch, one
    run outweighs all others, the more surely the larger the batch. A rule that clips the *mean* (`rules.clip`) makes
    that step short, but leaves its direction to that one run. Clipping each is what private SGD does for another reason
    (Abadi et al. 2016, https://arxiv.org/abs/1607.00133, algorithm 1). The value stays the loss.

    The gradient is biased towards the many; it is no gradient of a loss, so finite differences do not agree where a run
    is clipped.

    Args:
        norm: of the gradient by all learnable leaves of the learner, above zero.
        of: how each run is scored; one that has no estimator of its own.

    Raises:
        ValueError: a norm that is not above zero.
        TypeError: an `of` with an estimator of its own, such as `Evolution`.
    """

    of_the_loss: ClassVar[bool] = False
    norm: float = eqx.field(static=True, default=1.0)
    of: Gradient = Unrolled()

    def __check_init__(self):
        if not self.norm > 0:
            raise ValueError(f"Clipped: expected norm above 0, got {self.norm}.")
        check_scores(self.of, "Clipped")

    def evaluations(self, size: int) -> int:
        return self.of.evaluations(size)

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        return _scored(pick(learner), (learner, task, key), self)


@eqx.filter_custom_jvp
def _scored(leaves: list[Array], fixed: Any, how: Clipped) -> Any:
    learner, task, key = fixed
    return how.of.score(put(learner, leaves), task, key=key)


@_scored.def_jvp
def _scored_jvp(primals, tangents):
    (leaves, (learner, task, key), how), moves = primals, tangents[0]

    def scored(leaves):
        return how.of.score(put(learner, leaves), task, key=key)

    # by all leaves, whether they move or not: under `vmap` nobody can tell
    (loss, metrics), gradient = jax.value_and_grad(scored, has_aux=True)(leaves)
    along = sum(jnp.vdot(g, move) for g, move in zip(gradient, moves, strict=True) if move is not None)
    # where devices share the tasks of a run, each has a part of its gradient
    whole = mean_over_devices(gradient, learner.axis)
    return (loss, metrics), (_factor(whole, how.norm) * along, jax.tree.map(lambda _: None, metrics))


def _factor(gradient: list[Array], norm: float) -> Array:
    """What scales the gradient to that norm, 1 if it is shorter; finite also at nought."""
    square = sum(jnp.sum(g**2) for g in gradient)
    return jnp.where(square > norm**2, norm / jnp.sqrt(jnp.maximum(square, norm**2)), 1.0)
