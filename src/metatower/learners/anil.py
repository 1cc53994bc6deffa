"""Almost no inner loop."""

from jaxtyping import PyTree

from metatower.core import Descend, Objective, Selector
from metatower.rules import sgd


def anil(objective: Objective, head: Selector, rate: PyTree = 0.01, steps: int = 1) -> Descend:
    """ANIL: MAML whose inner steps move the head only; the body's features are reused as they are.

    Raghu, Raghu, Bengio & Vinyals 2020, "Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness
    of MAML", https://arxiv.org/abs/1909.09157, section 4:

        head' = head − rate · ∇head L_support(body, head)

    The storey above still learns both body and head: `lift(anil(objective, head), adam(1e-3), batch=25)`. Cheaper than
    MAML, since no inner gradient goes below the head.

    Args:
        objective: what each task scores.
        head: selects what moves, as a function of the objective: `lambda o: o.net.layers[-1]`.
        rate: the inner rate, as in `maml`.
        steps: inner steps per task.

    Differs from the paper in: nothing.

    >>> import jax
    >>> from metatower.core import names
    >>> from metatower.nets import MLP, Supervised, squared_error
    >>> objective = Supervised(MLP((1, 40, 1), key=jax.random.key(0)), squared_error)
    >>> learner = anil(objective, head=lambda o: o.net.layers[-1])
    >>> names(learner.objective, learner.learn)
    ['net.layers.1.weight', 'net.layers.1.bias']
    """
    return Descend(objective, sgd(rate), steps, learn=head)
