"""Is a meta-gradient worth following? Measured on a tame and on a chaotic inner run, and what follows from it.

The inner run is the logistic map x ← r x (1 − x), and what is learned is r, of which it depends whether the run settles
or is chaotic. It shall end at 0.6. `gradient_health` works the same on any tower that `lift` makes.

python examples/05_gradient_health.py [--smoke]
"""

import sys

import jax
import jax.numpy as jnp

from metatower import Learner, Task, Tasks, lift, sgd
from metatower.core import Unrolled
from metatower.evaluation import gradient_health
from metatower.gradients import NRES, Evolution, FirstOrder, Switching, Truncated

smoke = "--smoke" in sys.argv


class Logistic(Learner):
    """60 steps of the map from a random start, with r = 4 / (1 + exp(−leaf)), which no step can drive out of [0, 4]."""

    leaf: jax.Array
    steps = 60

    def start(self, *, key):
        return 0.2 + 0.6 * jax.random.uniform(key)

    def step(self, state, data, *, key):
        return 4 * jax.nn.sigmoid(self.leaf) * state * (1 - state)

    def loss(self, state, data, *, key):
        return (state - 0.6) ** 2, {}


class Nothing(Tasks):
    """The run needs no data."""

    def sample(self, key):
        return Task(jnp.zeros(()), jnp.zeros(()))


gradients = {
    "exact": Unrolled(),
    "first order": FirstOrder(),
    "truncated": Truncated(15),
    "evolution": Evolution(pairs=16, sigma=0.6),
    "noise reuse": NRES(pairs=16, sigma=0.6, unroll=15, every_step=False),
}
start = jnp.log(3.8 / (4 - 3.8))
for leaf in (jnp.log(2.8 / (4 - 2.8)), start):
    health = gradient_health(lift(Logistic(leaf), sgd(1.0)), Nothing(), gradients, draws=4 if smoke else 32)
    print(f"\nThe gradient at r = {float(4 * jax.nn.sigmoid(leaf)):.1f}:\n{health}")

# the last advice, put to use: exact where that is well, evolution elsewhere, decided at every step
for name, gradient in {"exact": Unrolled(), "switching": Switching(Unrolled(), gradients["evolution"], 1.0)}.items():
    trainer = lift(Logistic(start), sgd(2.0), batch=2, steps=10 if smoke else 200, gradient=gradient)
    state = jax.jit(lambda key, trainer=trainer: trainer.adapt(Nothing(), key=key))(jax.random.key(1))
    r, by = float(4 * jax.nn.sigmoid(state.leaves[0])), getattr(state.gradient, "count", 0)
    print(
        f"\n{trainer.steps} steps from r = 3.8, {name}: {int(by)} of them by evolution, r is now {r:.4f}, the best 2.5"
    )
