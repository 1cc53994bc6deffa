"""Model-agnostic meta-learning."""

from jaxtyping import PyTree

from metatower.core import Descend, Objective
from metatower.rules import sgd


def maml(objective: Objective, rate: PyTree = 0.01, steps: int = 1) -> Descend:
    """MAML: a few gradient steps on a task, from initial weights that the storey above learns.

    Finn, Abbeel & Levine 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks",
    https://arxiv.org/abs/1703.03400, equation 1 and algorithm 1:

        θ' = θ − rate · ∇θ L_support(θ)          (this learner, `steps` times)
        θ ← θ − β ∇θ Σ_tasks L_query(θ')         (its lift)

    In this library MAML is nothing but `Descend` with its initial weights as leaves. Train it as
    `lift(maml(objective), adam(1e-3), batch=25)`; lift that once more to learn how it should be trained.

    Args:
        objective: what each task scores, for example `Supervised(net, cross_entropy)`.
        rate: the inner rate: a number (fixed), an array or `Positive` (learned by the storey above), or one per
            leaf from `rates_for`.
        steps: inner steps per task.

    Differs from the paper in: at storey 0 nothing, but that every leaf of the network moves, scale and shift of norms
    too (the authors' code has no scale, and its shift stays). The lift averages over the batch of tasks instead of
    summing.

    >>> import jax
    >>> from metatower import adam, lift
    >>> from metatower.nets import MLP, Supervised, squared_error
    >>> objective = Supervised(MLP((1, 40, 40, 1), key=jax.random.key(0)), squared_error)
    >>> trainer = lift(maml(objective, rate=0.01), adam(1e-3), batch=25)
    >>> trainer.height
    1
    """
    return Descend(objective, sgd(rate), steps)
