"""The contract table: every learner, rule and gradient of the library is one row, and each row goes through all laws.

A row makes a learner. A rule's row is a learner that descends by it, a gradient's row a learner whose storey it
crosses, so that `test_contract.py` needs no cases. To add an algorithm, add its row here.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from metatower import (
    Descend,
    Learner,
    Objective,
    Positive,
    Task,
    Tasks,
    adam,
    anneal,
    clip,
    from_optax,
    lift,
    momentum,
    per_step,
    rates_for,
    sgd,
)
from metatower.core import Gradient, Rule
from metatower.gradients import Evolution, FirstOrder, ForwardMode, MixedMode, Reptile, Truncated, Unrolled
from metatower.learners import anil, fomaml, maml, meta_sgd, reptile
from metatower.nets import Examples


def key(seed: int):
    """A key whose generator is cheap to compile, which is most of what a tiny tower compiles."""
    return jax.random.key(seed, impl="unsafe_rbg")


def number(x: float) -> Array:
    """A learnable number of the default type."""
    return jnp.full((), x, jnp.result_type(float))


class Curve(Objective):
    """Fits y = tanh(w x) + b: two numbers, smooth, not linear."""

    w: Array
    b: Array

    def loss(self, data, *, key):
        error = jnp.mean((jnp.tanh(data.x * self.w) + self.b - data.y) ** 2)
        return error, {"root": jnp.sqrt(error)}


class Bowl(Objective):
    """½ a w², whose curvature a is the data: every gradient can be written down by hand."""

    w: Array

    def loss(self, data, *, key):
        return 0.5 * data * self.w**2, {}


class Bowls(Tasks):
    """One task: learn in a bowl of curvature `support`, be judged in one of curvature `query`."""

    support: Array
    query: Array

    def sample(self, key):
        return Task(self.support, self.query)


class Slopes(Tasks):
    """Fit sin(a x), a within 0.5 above `slope`."""

    slope: Array

    def sample(self, key):
        key_slope, key_x = jax.random.split(key)
        x = jax.random.uniform(key_x, (6,), minval=-1.0, maxval=1.0)
        y = jnp.sin((self.slope + 0.5 * jax.random.uniform(key_slope)) * x)
        return Task(Examples(x[:3], y[:3]), Examples(x[3:], y[3:]))


class Stretched(Tasks):
    """A distribution over the distributions like `below`: the same one with its parameters stretched, twice."""

    below: Tasks

    def sample(self, key):
        factors = jax.random.uniform(key, (2,), minval=0.5, maxval=1.5)
        return Task(*(jax.tree.map(lambda leaf, f=f: leaf * f, self.below) for f in factors))


class Memory(Learner):
    """Knows no gradient: it averages x·y with a decay, and predicts gain · average · x."""

    decay: Array
    gain: Array
    steps = 2

    def start(self, *, key):
        return jnp.zeros_like(self.gain)

    def step(self, state, data, *, key):
        return self.decay * state + (1 - self.decay) * jnp.mean(data.x * data.y)

    def loss(self, state, data, *, key):
        return jnp.mean((self.gain * state * data.x - data.y) ** 2), {}


def curve() -> Curve:
    return Curve(number(0.5), number(0.1))


def data(height: int):
    """What a learner of this height learns from: examples, and tasks of tasks above."""
    if height == 0:
        return Slopes(number(1.0)).sample(key(9)).support
    tasks: Tasks = Slopes(number(1.0))
    for _ in range(height - 1):
        tasks = Stretched(tasks)
    return tasks


def up(learner: Learner, gradient: Gradient | None = None, batch: int = 2) -> Learner:
    """`learner` lifted as every test lifts: two steps, a learned rate."""
    return lift(learner, sgd(number(0.1)), batch=batch, steps=2, gradient=gradient)


LEARNERS: dict[str, Callable[[], Learner]] = {
    "maml": lambda: maml(curve(), number(0.2), steps=2),
    "anil": lambda: anil(curve(), lambda o: o.b, number(0.2), steps=2),
    "meta_sgd": lambda: meta_sgd(curve(), 0.2, steps=2),
    "fomaml": lambda: fomaml(curve(), sgd(0.1), 0.2, steps=2, batch=2),
    "reptile": lambda: reptile(curve(), sgd(0.1), 0.2, steps=2, batch=2),
    "a learner without gradient": lambda: Memory(number(0.3), number(2.0)),
}

RULES: dict[str, Callable[[Objective], Rule]] = {
    "sgd": lambda o: sgd(0.2),
    "sgd, learned rate": lambda o: sgd(number(0.2)),
    "sgd, rate per leaf": lambda o: sgd(rates_for(o, 0.2)),
    "sgd, rate per parameter": lambda o: sgd(rates_for(o, 0.2, per="parameter")),
    "momentum": lambda o: momentum(number(0.2), number(0.8)),
    "adam": lambda o: adam(0.05),
    "adam, all learned": lambda o: adam(Positive(0.05), number(0.8), number(0.9), Positive(1e-3)),
    "per_step": lambda o: per_step(sgd(rates_for(o, 0.2, steps=2))),
    "clip": lambda o: clip(sgd(number(0.5)), number(0.05)),
    "anneal": lambda o: anneal(sgd(number(0.5)), 3),
    "optax": lambda o: from_optax(optax.adam(0.05)),
}

EXACT: dict[str, Callable[[], Gradient]] = {
    "unrolled": Unrolled,
    "unrolled, with remat": lambda: Unrolled(remat=True),
    "unrolled, without remat": lambda: Unrolled(remat=False),
    "unrolled, in segments": lambda: Unrolled(segment=1),
    "mixed mode": MixedMode,
    "forward mode": ForwardMode,
    "truncated behind the run's start": lambda: Truncated(last=2),
}

ESTIMATORS: dict[str, Callable[[], Gradient]] = {
    "truncated": lambda: Truncated(last=1),
    "first order": FirstOrder,
    "reptile": Reptile,
    "evolution": lambda: Evolution(pairs=2),
}

ROWS: dict[str, Callable[[], Learner]] = {
    **{f"learner: {name}": make for name, make in LEARNERS.items()},
    **{
        f"rule: {name}": lambda make=make: Descend(curve(), make(curve()), steps=2)  # a rule is seen in what it moves
        for name, make in RULES.items()
    },
    **{
        f"gradient: {name}": lambda make=make: up(maml(curve(), number(0.2), steps=2), make())
        for name, make in {**EXACT, **ESTIMATORS}.items()
    },
}


def stepped(learner: Learner, data, seed: int = 0):
    """The state after one step from a fresh start, and its loss: everything a storey does, compiled together."""

    def one(learner, data, key):
        key_start, key_step, key_loss = jax.random.split(key, 3)
        state, metrics = learner.update(learner.start(key=key_start), data, key=key_step)
        return state, metrics, learner.loss(state, data, key=key_loss)

    return eqx.filter_jit(one)(learner, data, key(seed))


def shapes(tree):
    """Structure, shapes and types of the arrays of a tree."""
    return jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf, eqx.filter(tree, eqx.is_array)
    )
