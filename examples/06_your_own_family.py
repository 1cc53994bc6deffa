"""A family of task distributions of your own, for `metatower compare`:

    metatower compare meta-meta --families examples/06_your_own_family.py --quick

A distribution is a line with a slope, a bend and a noise of its own; its tasks differ in where the line starts.
"train" has gentle slopes, "test" steep ones of the other sign. For classification give `Examples(x, y, ways=mask)`:
integer labels from 0, and a boolean mask with one entry per class.

    python examples/06_your_own_family.py [--smoke]
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from metatower import Task, Tasks
from metatower.nets import Examples


class Lines(Tasks):
    """One distribution: its tasks share slope, bend and noise."""

    slope: Array
    bend: Array
    noise: Array
    pool: Array
    """0 or 1: two halves of the same starts, every other of 20 strips. They share no task."""

    def sample(self, key):
        key_start, key_x, key_noise = jax.random.split(key, 3)
        strip, within = jnp.divmod(10 * jax.random.uniform(key_start), 1.0)
        start = (2 * strip + self.pool + within) / 10 - 1
        x = jax.random.uniform(key_x, (15, 1), minval=-2.0, maxval=2.0)
        y = start + self.slope * x + self.bend * jnp.abs(x)
        seen = y[:5] + self.noise * jax.random.normal(key_noise, (5, 1))
        return Task(Examples(x[:5], seen), Examples(x[5:], y[5:]))


class Family(Tasks):
    """The family: a task of it is a pair of distributions, one to learn from and one to be judged on."""

    steepest: Array
    sign: float = eqx.field(static=True)

    def sample(self, key):
        slope, bend, noise = jax.random.uniform(key, (3,))
        own = (self.sign * self.steepest * slope, 2 * bend - 1, 0.3 * noise)
        return Task(Lines(*own, jnp.array(0.0)), Lines(*own, jnp.array(1.0)))


def family(split: str) -> Tasks:
    """What `metatower compare` asks for."""
    return Family(jnp.array(2.0), -1.0) if split == "test" else Family(jnp.array(1.0), 1.0)


if __name__ == "__main__":
    for split in ("train", "validation", "test"):
        task = family(split).sample(jax.random.key(0)).support.sample(jax.random.key(1))
        print(f"{split}: x {task.support.x[:3, 0].round(2)}, y {task.support.y[:3, 0].round(2)}")
