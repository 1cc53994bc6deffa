"""MAML++."""

from metatower.core import Descend, Objective
from metatower.nets.norm import norms
from metatower.rules import drift, per_step, rates_for, sgd


def maml_plus_plus(objective: Objective, rate: float = 0.1, steps: int = 5) -> Descend:
    """MAML++: MAML with learned rates for every layer and step, and norms of their own for every step.

    Antoniou, Edwards & Storkey 2019, "How to train your MAML", https://arxiv.org/abs/1810.09502, section 4:

        θ_{i+1} = θ_i − α_{i, layer} ∇ L_support(θ_i);    scale and shift of the norms: γ_i, β_i, learned, not adapted

    The rest of MAML++ is how the storey above trains it, each an argument of `lift`:

    - multi-step loss: `gradient=MultiStep(multi_step_weights(steps, progress))`, progress from 0 to 1;
    - derivative-order annealing: `gradient=FirstOrder()` first, from whose state training goes on with the above;
    - cosine annealing: `rule=from_optax(optax.adam(optax.cosine_decay_schedule(1e-3, 50_000, alpha=0.01)))`.

    Args:
        objective: what each task scores; its network may have norms or none.
        rate: what all rates start from.
        steps: inner steps per task.

    Differs from the paper in: rates are learned through their logarithm; statistics of the norms are those of the
    batch at hand (as the authors' code does), not running ones per step.

    >>> import jax
    >>> from metatower.nets import ConvNet, Supervised, cross_entropy
    >>> learner = maml_plus_plus(Supervised(ConvNet(5, key=jax.random.key(0)), cross_entropy), steps=3)
    >>> [values.shape for values in learner.rule.values][:2]
    [(3, 64), (3, 64)]
    """
    rule = per_step(sgd(rates_for(objective, rate, steps=steps)))
    return Descend(objective, drift(rule, objective, norms, steps) if norms(objective) else rule, steps)
