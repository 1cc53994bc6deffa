"""Three storeys in ten lines, described, priced, and stepped once.

python examples/01_three_storeys.py            # with memory and compile time of each storey, about two minutes
python examples/01_three_storeys.py --smoke    # described only
"""

import sys

import jax
import jax.numpy as jnp

from metatower import Descend, Positive, adam, describe, lift, plan, rates_for, sgd
from metatower.core import names
from metatower.nets import MLP, Supervised, squared_error
from metatower.tasks.functions import FunctionFamily, Sinusoids

# Storey 0 learns one function from ten points, by three steps with a learnable rate for every layer.
objective = Supervised(MLP((1, 40, 40, 1), key=jax.random.key(0)), squared_error)
maml = Descend(objective, sgd(rates_for(objective, 0.02)), steps=3)

# Storey 1 learns how storey 0 should start and step, from many functions: this is the MAML trainer.
trainer = lift(maml, adam(Positive(1e-3)), batch=8, steps=10)

# Storey 2 learns how storey 1 should learn that, from many distributions of functions.
meta_trainer = lift(trainer, adam(1e-3), batch=4, steps=100)

# Storey 3 learns how fast storey 2 should, and nothing else.
top = lift(lift(trainer, adam(jnp.array(1e-3)), batch=4, steps=2), sgd(0.1), learn=lambda learner: learner.rule)

print(describe(top))
print("\nWhat storey 2 moves:", *names(meta_trainer.objective), sep="\n  ")

if "--smoke" in sys.argv:
    print(plan(trainer, Sinusoids(), compile=False))
else:
    print(plan(meta_trainer, FunctionFamily()))
    state = meta_trainer.start(key=jax.random.key(1))
    state, metrics = jax.jit(lambda state, key: meta_trainer.update(state, FunctionFamily(), key=key))(
        state, jax.random.key(2)
    )
    print(f"loss of storey 2 before its first step: {metrics['loss']:.3f}")
