"""An environment of Gymnasium of somebody else, and agents that act by hand in it."""

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from metatower.learners.acting import Agent


class Doors(gymnasium.Env):
    """One of three doors pays 1; an episode is `length` tries. Nothing of the package is in it."""

    def __init__(self, door=2, length=1, start=0, seen=(0,)):
        self.observation_space = gymnasium.spaces.Box(-1, 1, seen, np.float64)
        self.action_space = gymnasium.spaces.Discrete(3, start=start)
        self.door, self.length, self.resets, self.tried = door, length, 0, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.resets = 0, self.resets + 1
        return self.shown(), {}

    def shown(self):
        return np.full(self.observation_space.shape, self.resets / 100)

    def step(self, action):
        self.time += 1
        self.tried.append(int(action))
        return self.shown(), float(action == self.door), False, self.time >= self.length, {}


class Recorder(Agent):
    """Tries the doors in turn, and keeps what it has seen of rewards and ends."""

    actions: int = eqx.field(static=True, default=3)

    def begin(self, *, key):
        return jnp.zeros((), jnp.int32), jnp.zeros(20), jnp.zeros(20), jnp.zeros(20)

    def decide(self, memory, seen, *, key):
        time, rewards, done, action = memory
        put = lambda x, y: x.at[time].set(y)  # noqa: E731
        after = time + 1, put(rewards, seen.reward), put(done, seen.done), put(action, jnp.argmax(seen.action))
        return after, time % 3, {}


class Runner(Agent):
    """Acts in a box; looks at observations of four numbers."""

    weights: jax.Array
    actions: int = eqx.field(static=True, default=2)

    def begin(self, *, key):
        return None

    def decide(self, memory, seen, *, key):
        return memory, self.weights @ seen.observation, {}
