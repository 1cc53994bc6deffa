"""Reptile."""

from jaxtyping import PyTree

from metatower.core import Descend, Objective, Rule, lift
from metatower.gradients import Reptile
from metatower.rules import sgd


def reptile(objective: Objective, rule: Rule, rate: PyTree = 0.01, steps: int = 5, batch: int = 1) -> Descend:
    """Reptile: move the initial weights towards where each task's run ends; no derivative crosses the run.

    Nichol, Achiam & Schulman 2018, "On First-Order Meta-Learning Algorithms", https://arxiv.org/abs/1803.02999,
    algorithm 2:

        φ ← φ + ε · mean over tasks of (θ_T − φ),  θ_T being `steps` inner steps from φ on the task.

    Returns a *trainer* (storey 1): plain descent in the inner loop, `gradient=Reptile()` in its lift.

    Args:
        objective: what each task scores.
        rule: how the initial weights move; `sgd(ε)` is the formula above, Adam works too.
        rate: the inner rate, as in `maml`. Reptile gives a learned rate no gradient.
        steps: inner steps per task; with one step the update is that of pooled training.
        batch: tasks per step.

    Differs from the paper in: every inner step sees the whole support set instead of a fresh mini-batch of the
    task's data, and takes plain SGD instead of Adam with β₁ = 0. The query is used for reporting only.

    >>> import jax
    >>> from metatower import sgd
    >>> from metatower.nets import Linear, Supervised, squared_error
    >>> objective = Supervised(Linear(1, 1, key=jax.random.key(0)), squared_error)
    >>> reptile(objective, sgd(0.1), steps=5, batch=4).height
    1
    """
    return lift(Descend(objective, sgd(rate), steps), rule, batch=batch, gradient=Reptile())
