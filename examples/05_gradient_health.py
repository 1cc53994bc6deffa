"""Is a meta-gradient worth following? Measured on a tame and on a chaotic inner run, and what follows from it.

The same network learns sinusoids by the same number of steps, once with a short and once with a long inner rate. In the
second case a run enlarges small differences with every step, and so its exact gradient is large and mostly noise.

python examples/05_gradient_health.py [--smoke]
"""

import sys

import jax

from metatower import Descend, adam, lift, rates_for, sgd
from metatower.core import Unrolled
from metatower.evaluation import gradient_health, recommend
from metatower.gradients import NRES, Evolution, FirstOrder, Switching, Truncated
from metatower.nets import MLP, Supervised, squared_error
from metatower.tasks.functions import Sinusoids

smoke = "--smoke" in sys.argv
steps, width, draws = (4, 4, 2) if smoke else (40, 20, 16)
objective = Supervised(MLP((1, width, width, 1), key=jax.random.key(0)), squared_error)
gradients = {
    "exact": Unrolled(),
    "first order": FirstOrder(),
    "truncated": Truncated(steps // 4),
    "evolution": Evolution(pairs=16, sigma=0.1),
    "noise reuse": NRES(pairs=16, sigma=0.1, unroll=steps // 4, every_step=False),
}

for rate in (0.01, 0.2):
    trainer = lift(
        Descend(objective, sgd(rates_for(objective, rate)), steps),
        adam(1e-3),
        batch=8,
        learn=lambda learner: learner.rule,
    )
    health = gradient_health(trainer, Sinusoids(), gradients, draws=draws)
    print(f"\nThe gradient of the logarithms of the inner rates, all at {rate}:\n{health}")

# the last advice, put to use: exact where that is well, evolution elsewhere, decided at every step
careful = Switching(Unrolled(), Evolution(pairs=16, sigma=0.1), limit=recommend(health).limit)
trainer = lift(
    Descend(objective, sgd(rates_for(objective, 0.2)), steps),
    sgd(0.02),
    batch=8,
    steps=2 if smoke else 100,
    gradient=careful,
    learn=lambda learner: learner.rule,
)
state = jax.jit(lambda key: trainer.adapt(Sinusoids(), key=key))(jax.random.key(1))
rates = ", ".join(f"{float(rate):.3g}" for rate in jax.numpy.exp(state.leaves[0]))
print(f"\n{trainer.steps} steps of `Switching`: {int(state.gradient.count)} by evolution; the rates are now {rates}")
