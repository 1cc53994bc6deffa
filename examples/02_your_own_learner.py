"""A learner of your own, with no gradient inside, lifted twice.

It predicts by remembering: a new point gets the mean of the stored targets, weighted by nearness. What is near is the
one number it has, and the storeys above learn it: storey 1 from many functions, storey 2 so that storey 1 learns fast.

    python examples/02_your_own_learner.py [--smoke]
"""

import sys

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metatower import Learner, Positive, adam, describe, lift, sgd, value
from metatower.tasks.functions import FunctionFamily, Sinusoids


class Remember(Learner):
    """Nadaraya-Watson regression."""

    width: Positive

    def start(self, *, key):
        return None  # nothing is known before the first look

    def step(self, state, data, *, key):
        return data

    def loss(self, state, data, *, key):
        distance = (data.x - state.x[:, 0]) / value(self.width)
        prediction = jax.nn.softmax(-(distance**2), axis=1) @ state.y
        return jnp.mean((prediction - data.y) ** 2), {}


def width_after(learner, data, steps: int) -> tuple[Array, Array]:
    """Width and loss after `steps` steps of a lifted learner."""

    @jax.jit
    def run(key):
        keys = jax.random.split(key, steps)
        return jax.lax.scan(lambda s, k: learner.update(s, data, key=k), learner.start(key=key), keys)

    state, metrics = run(jax.random.key(0))
    return jnp.exp(state.leaves[0]), metrics["loss"]


smoke = "--smoke" in sys.argv
remember = Remember(Positive(3.0))

trainer = lift(remember, adam(0.05), batch=16)
width, losses = width_after(trainer, Sinusoids(), steps=5 if smoke else 300)
print(f"storey 1 on sinusoids: loss {losses[:5].mean():.2f} -> {losses[-5:].mean():.2f}, width 3.00 -> {width:.2f}")

# One storey up, a task is a distribution of functions, learned from in a fresh run of five steps. What is learned is
# the width such runs start from, and their rate.
meta_trainer = lift(lift(remember, sgd(Positive(0.05)), batch=4, steps=5), adam(0.05), batch=8)
width, losses = width_after(meta_trainer, FunctionFamily(), steps=5 if smoke else 300)
print(f"storey 2 on families:  loss {losses[:5].mean():.2f} -> {losses[-5:].mean():.2f}, width 3.00 -> {width:.2f}\n")

print(describe(meta_trainer))
