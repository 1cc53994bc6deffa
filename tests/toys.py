"""Small objectives, tasks and learners that tests are written with, whose losses and gradients are easy to know."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from metatower import (
    Learner,
    Objective,
    Task,
    Tasks,
    lift,
    sgd,
)
from metatower.core import Gradient
from metatower.envs import Discrete, Solvable, Step
from metatower.nets import (
    BatchNorm,
    Examples,
    Linear,
    batch_norm,
)


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


class Blobs(Tasks):
    """Tell three clouds of points in the plane apart, `spread` wide, from two points of each."""

    spread: Array

    def sample(self, key):
        key_centre, key_points = jax.random.split(key)
        centre = jax.random.normal(key_centre, (3, 1, 2))
        x = centre + self.spread * jax.random.normal(key_points, (3, 4, 2))
        y = jnp.broadcast_to(jnp.arange(3)[:, None], (3, 2)).reshape(-1)
        return Task(*(Examples(part.reshape(-1, 2), y, ways=jnp.ones(3, bool)) for part in (x[:, :2], x[:, 2:])))


class Guess(Solvable):
    """Guess a hidden number twice, out of three: pays minus the square of the error."""

    widest: Array
    horizon: int = eqx.field(static=True, default=2)

    @property
    def observation_shape(self):
        return (1,)

    @property
    def actions(self):
        return Discrete(3)

    def sample_task(self, key):
        return self.widest * jax.random.uniform(key)

    def reset(self, key, task):
        return number(0.0), jnp.ones(1)

    def step(self, key, state, action, task):
        state = state + 1
        return state, Step(state[None], -((task - action) ** 2), jnp.asarray(False), jnp.asarray(False))

    def solve(self, task):
        pay = -((task - jnp.arange(3)) ** 2)
        return pay - jnp.max(pay)

    def shortfall(self, solution, state, moves):
        return solution


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


class Tanh(eqx.Module):
    """Features of points in the plane, by a smooth network with a norm."""

    linear: Linear
    norm: BatchNorm

    def __call__(self, x):
        return self.normalised(x)[0]

    def normalised(self, x, weight=None, given=None):
        y, moments = self.norm.normalised(jnp.tanh(self.linear(x)), weight, given and given[0])
        return y, [moments]


def curve() -> Curve:
    return Curve(number(0.5), number(0.1))


def guess() -> Guess:
    return Guess(number(2.0))


def embedding() -> Tanh:
    return Tanh(Linear(2, 3, key=key(5)), batch_norm(3, "support"))


def data(height: int, tasks: Tasks | None = None):
    """What a learner of this height learns from: examples, and tasks of tasks above; slopes if no others are named."""
    tasks = Slopes(number(1.0)) if tasks is None else tasks
    if height == 0:
        return tasks.sample(key(9)).support
    for _ in range(height - 1):
        tasks = Stretched(tasks)
    return tasks


def up(learner: Learner, gradient: Gradient | None = None, batch: int = 2) -> Learner:
    """`learner` lifted as every test lifts: two steps, a learned rate."""
    return lift(learner, sgd(number(0.1)), batch=batch, steps=2, gradient=gradient)
