"""First-order meta-gradients."""

from jaxtyping import PRNGKeyArray

from metatower.core import Gradient, Learner, Scored, Task
from metatower.core.gradient import score


class FirstOrder(Gradient):
    """The exact gradient with the derivative of the inner learner's gradients taken as zero.

    At storey 1 this is FOMAML (Finn et al. 2017, section 5.2): ∇θ L(θ_T) with ∂g/∂θ = 0. Learned rates
    still receive their gradient, since θ_T depends on them directly. Biased; it saves the second derivatives.
    """

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        return score(learner.first_order(), task, key=key)
