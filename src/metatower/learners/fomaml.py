"""First-order MAML."""

from jaxtyping import PyTree

from metatower.core import Descend, Objective, Rule, lift
from metatower.gradients import FirstOrder
from metatower.rules import sgd


def fomaml(objective: Objective, rule: Rule, rate: PyTree = 0.01, steps: int = 1, batch: int = 1) -> Descend:
    """FOMAML: MAML's trainer, which takes the derivative of every inner gradient as zero.

    Finn, Abbeel & Levine 2017, section 5.2, https://arxiv.org/abs/1703.03400; Nichol, Achiam & Schulman 2018,
    https://arxiv.org/abs/1803.02999, section 3:

        ∇θ L_query(θ_T)  is replaced by  ∇θ_T L_query(θ_T),  θ_T being the adapted weights.

    How a gradient crosses a storey belongs to the storey above, so this returns a *trainer* (storey 1): MAML's learner
    with `gradient=FirstOrder()` in its lift. Use it like any lifted learner, and lift it again.

    Args:
        objective: what each task scores.
        rule: how the initial weights move, for example `adam(1e-3)`.
        rate: the inner rate, as in `maml`. A learned one still receives its gradient.
        steps: inner steps per task.
        batch: tasks per step.

    Differs from the paper in: nothing; tasks are averaged instead of summed.

    >>> import jax
    >>> from metatower import adam
    >>> from metatower.nets import Linear, Supervised, squared_error
    >>> objective = Supervised(Linear(1, 1, key=jax.random.key(0)), squared_error)
    >>> fomaml(objective, adam(1e-3), steps=5, batch=4).height
    1
    """
    return lift(Descend(objective, sgd(rate), steps), rule, batch=batch, gradient=FirstOrder())
