"""The gradient of the logarithm of each run's loss."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from metatower.core import Gradient, Learner, Scored, Task, Unrolled
from metatower.core.gradient import check_scores


class Relative(Gradient):
    """Every run counts by the *factor* by which its loss falls, and not by the amount.

        ∇θ log L(θ; task) = ∇θ L / L

    Squared errors of tasks of different size or noise differ by orders of magnitude, and the plain gradient is then
    that of a few large ones. The mean of the logarithms, whose exponential is the geometric mean of the losses, hears
    all alike. The *value* stays the loss, so that what is shown and stored keeps its unit.

    Args:
        of: how each run is scored; one that has no estimator of its own.
        least: losses below it are not told apart; above zero, as some task may be solved exactly.

    Raises:
        TypeError: an `of` with an estimator of its own, such as `Evolution`, or one whose derivative is not that of
            its value.
    """

    of_the_loss: ClassVar[bool] = False
    of: Gradient = Unrolled()
    least: float = eqx.field(static=True, default=1e-6)

    def __check_init__(self):
        check_scores(self.of, "Relative")
        if not self.of.of_the_loss:
            raise TypeError(
                f"Relative divides by the loss, and the derivative of what {type(self.of).__name__} scores is not that "
                "of its loss: the storey above would get a wrong gradient. Give Unrolled, Truncated or FirstOrder."
            )

    def evaluations(self, size: int) -> int:
        return self.of.evaluations(size)

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        loss, metrics = self.of.score(learner, task, key=key)
        logarithm = jnp.log(loss + self.least)
        return jax.lax.stop_gradient(loss) + logarithm - jax.lax.stop_gradient(logarithm), metrics
