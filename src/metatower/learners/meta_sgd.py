"""Meta-SGD."""

from metatower.core import Descend, Objective
from metatower.rules import rates_for, sgd


def meta_sgd(objective: Objective, rate: float = 0.01, steps: int = 1) -> Descend:
    """Meta-SGD: MAML with a learned rate for every single parameter.

    Li, Zhou, Chen & Li 2017, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning",
    https://arxiv.org/abs/1707.09835, equation 3:

        θ' = θ − α ∘ ∇θ L_support(θ),  with θ and α both learned by the storey above.

    Train it as `lift(meta_sgd(objective), adam(1e-3), batch=25)`.

    Args:
        objective: what each task scores.
        rate: what all rates start from.
        steps: inner steps per task; the paper takes one.

    Differs from the paper in: rates are learned through their logarithm, so they stay positive, and all start
    from the same value instead of a uniform draw. For signed rates write
    `Descend(objective, sgd([jnp.full(leaf.shape, 0.01) for leaf in pick(objective)]))`.

    >>> import jax
    >>> from metatower.core import pick
    >>> from metatower.nets import Linear, Supervised, squared_error
    >>> objective = Supervised(Linear(3, 2, key=jax.random.key(0)), squared_error)
    >>> [leaf.shape for leaf in pick(meta_sgd(objective).rule)]
    [(3, 2), (2,)]
    """
    return Descend(objective, sgd(rates_for(objective, rate, per="parameter")), steps)
