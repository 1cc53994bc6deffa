"""Every way for a gradient to cross a storey, on one trainer: gradients that agree, and some that do not.

Evolution strategies draw their tasks with a key of their own, so their loss is that of other tasks.

python examples/03_gradients.py [--smoke]
"""

import sys

import jax
import jax.numpy as jnp

from metatower import Descend, Positive, lift, sgd
from metatower.core import pick
from metatower.gradients import Evolution, FirstOrder, ForwardMode, Reptile, Truncated, Unrolled
from metatower.nets import MLP, Supervised, squared_error
from metatower.tasks.functions import Sinusoids

smoke = "--smoke" in sys.argv
objective = Supervised(MLP((1, 4, 1), key=jax.random.key(0)), squared_error)
maml = Descend(objective, sgd(Positive(0.02)), steps=5)

GRADIENTS = {
    "reverse mode": Unrolled(),
    "forward mode": ForwardMode(),
    "first order": FirstOrder(),
    "last two steps": Truncated(last=2),
    "Reptile": Reptile(),
    "evolution": Evolution(pairs=50 if smoke else 2000),
}


def gradient_of(gradient):
    """One step of rate 1 moves every number by minus its gradient."""
    trainer = lift(maml, sgd(1.0), batch=8, gradient=gradient)
    start = trainer.start(key=jax.random.key(1))
    state, metrics = jax.jit(lambda key: trainer.update(start, Sinusoids(), key=key))(jax.random.key(2))
    moved = [jnp.ravel(a - b) for a, b in zip(start.leaves, state.leaves, strict=True)]
    return jnp.concatenate(moved), metrics["loss"]


exact, _ = gradient_of(Unrolled())
print(
    f"{len(exact)} numbers: {len(exact) - len(pick(maml.rule))} initial weights and the logarithm of the inner rate\n"
)
print(f"{'gradient':<16}{'loss':>8}{'length':>10}{'cosine':>10}{'rate':>10}")
for name, how in GRADIENTS.items():
    found, loss = gradient_of(how)
    cosine = jnp.vdot(found, exact) / (jnp.linalg.norm(found) * jnp.linalg.norm(exact))
    print(f"{name:<16}{loss:8.3f}{jnp.linalg.norm(found):10.3f}{cosine:10.3f}{found[-1]:10.3f}")
