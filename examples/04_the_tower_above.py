"""Evolution strategies over storey 2: storey 3 learns how storey 2 should learn, and nothing is differentiated thrice.

Storey 2 improves the two rates of a MAML, the inner and the outer one, by three steps on distributions of functions.
How long those steps are is what storey 3 learns: one number, through its logarithm, that starts far too small. Exact
gradients go up to here too (`lift` as ever), at a compile time that grows fourfold with every storey; evolution
strategies compile storey 2 only.

python examples/04_the_tower_above.py [--smoke]
"""

import dataclasses
import sys
import time

import jax
import jax.numpy as jnp

from metatower import Descend, Positive, Task, Tasks, adam, describe, lift, sgd
from metatower.gradients import Evolution
from metatower.nets import MLP, Supervised, squared_error
from metatower.tasks.functions import FunctionFamily

smoke = "--smoke" in sys.argv


class Families(Tasks):
    """A distribution over families: each stretches the ranges of one, the same for learning and for judging."""

    family: FunctionFamily

    def sample(self, key):
        factor = 0.5 + jax.random.uniform(key)
        stretched = jax.tree.map(lambda x: x * factor, self.family)
        return Task(stretched, stretched)


width, steps, updates = (4, 1, 1) if smoke else (20, 3, 100)
objective = Supervised(MLP((1, width, 1), key=jax.random.key(0)), squared_error)
maml = Descend(objective, sgd(Positive(0.003)))  # storey 0
trainer = lift(maml, sgd(Positive(0.003)), batch=4, steps=steps)  # storey 1: rates too small
learn = lambda trainer: (trainer.rule, trainer.objective.learner.rule)  # noqa: E731
meta = lift(trainer, adam(Positive(0.01)), batch=2, steps=steps, judged=4, learn=learn)  # storey 2: steps too short
evolution = Evolution(pairs=1 if smoke else 4, sigma=0.2)
top = lift(meta, adam(0.08), batch=8, gradient=evolution, learn=lambda learner: learner.rule)  # storey 3
print(describe(top))

tasks = Families(FunctionFamily())


@jax.jit
def judge(learner, key):
    """What runs of storey 2 end with, on average over families."""
    return lift(learner, sgd(0.0), batch=2 if smoke else 32).objective.loss(tasks, key=key)[0]


update = jax.jit(lambda state, key: top.update(state, tasks, key=key))
state = top.start(key=jax.random.key(1))
before = judge(meta, jax.random.key(2))
began = time.perf_counter()
for i in range(updates):
    state, metrics = update(state, jax.random.fold_in(jax.random.key(3), i))
    if i == 0:
        print(f"\nfirst step of storey 3, compilation included: {time.perf_counter() - began:.1f} s")
learned = top.result(state).learner
after = judge(learned, jax.random.key(2))
print(
    f"{updates} steps in {time.perf_counter() - began:.1f} s: storey 2's rate went from 0.01 to "
    f"{float(jnp.exp(learned.rule.rate.log)):.3g}, what a run of it ends with from {before:.3f} to {after:.3f}"
)
for rate in () if smoke else (0.03, 0.1, 0.3, 1.0):
    given = dataclasses.replace(meta, rule=adam(Positive(rate)))
    print(f"with a rate of {rate} given: {judge(given, jax.random.key(2)):.3f}")
