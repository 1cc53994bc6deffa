"""What an environment is: pure functions of an explicit task, which never reset themselves."""

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

EnvTask = PyTree
"""The parameters of one environment of a distribution, hidden from the agent."""
EnvState = PyTree


class Discrete(eqx.Module):
    """Actions 0 to n − 1."""

    n: int = eqx.field(static=True)

    def __check_init__(self):
        if not (isinstance(self.n, int) and self.n >= 1):
            raise ValueError(f"Discrete: expected n as an integer of at least 1, got {self.n!r}.")

    @property
    def size(self) -> int:
        """Numbers that encode one action."""
        return self.n

    def encode(self, action: Int[Array, ""]) -> Float[Array, " n"]:
        """The action as an agent sees it afterwards: one-hot."""
        return jax.nn.one_hot(action, self.n)

    def sample(self, key: PRNGKeyArray) -> Int[Array, ""]:
        """An action at random, all equally likely."""
        return jax.random.randint(key, (), 0, self.n)


class Box(eqx.Module):
    """Vectors (or arrays) of this shape; an environment clips what lies outside the bounds.

    Args:
        low, high: the bounds, numbers or tuples with one number for each entry of the flattened action.
        shape: of an action.
    """

    low: float | tuple[float, ...] = eqx.field(static=True)
    high: float | tuple[float, ...] = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __check_init__(self):
        for name in ("low", "high"):
            bound = getattr(self, name)
            if isinstance(bound, tuple) and len(bound) != math.prod(self.shape):
                raise ValueError(
                    f"Box: expected {name} as a number or {math.prod(self.shape)} of them, for the shape {self.shape}; "
                    f"got {len(bound)}."
                )

    @property
    def size(self) -> int:
        """Numbers that encode one action."""
        return math.prod(self.shape)

    @property
    def bounds(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Lower and upper bounds, each of the shape of an action."""
        low, high = (jnp.asarray(each, float) for each in (self.low, self.high))
        return tuple(x.reshape(self.shape) if x.ndim else jnp.full(self.shape, x) for x in (low, high))  # type: ignore

    def encode(self, action: Float[Array, "..."]) -> Float[Array, " size"]:
        """The action as an agent sees it afterwards: the vector, as the agent chose it."""
        return jnp.asarray(action, float).reshape(-1)

    def clip(self, action: Float[Array, "..."]) -> Float[Array, "..."]:
        """The nearest action within the bounds."""
        return jnp.clip(action, *self.bounds)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "..."]:
        """An action at random, uniform within the bounds, which must be finite."""
        low, high = self.bounds
        return low + (high - low) * jax.random.uniform(key, self.shape)


class Step(eqx.Module):
    """What an environment answers to an action."""

    observation: Float[Array, "..."]
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    """The episode is over because of what happened in it: nothing comes after, so nothing is to be bootstrapped."""
    truncated: Bool[Array, ""]
    """The episode is cut off although it would go on; the value of `observation` still counts."""


class Environment(eqx.Module):
    """A distribution of environments. `jit` and `vmap` apply; nothing in it resets or resamples.

    Array leaves are the parameters of the distribution of tasks. The task is an argument of every method, so that one
    compiled program serves all tasks. Only `Trial` resets.
    """

    horizon: eqx.AbstractVar[int]
    """Steps after which `Trial` cuts an episode off (as truncated, unless the last step terminated it)."""

    @property
    @abstractmethod
    def observation_shape(self) -> tuple[int, ...]:
        """Of what `reset` and `step` show."""

    @property
    @abstractmethod
    def actions(self) -> Discrete | Box:
        """What `step` takes."""

    @abstractmethod
    def sample_task(self, key: PRNGKeyArray) -> EnvTask:
        """One task: a pytree of arrays."""

    @abstractmethod
    def reset(self, key: PRNGKeyArray, task: EnvTask) -> tuple[EnvState, Float[Array, "..."]]:
        """The state at the beginning of an episode, and the first observation."""

    @abstractmethod
    def step(self, key: PRNGKeyArray, state: EnvState, action: Any, task: EnvTask) -> tuple[EnvState, Step]:
        """The state after one action, and what is seen of it."""


class Solvable(Environment):
    """An environment with numbered actions whose optimum can be computed for each task.

    A* = Q* − V* is how much less is to be expected, until the episode ends, of one action followed by the best ones
    than of the best ones. By the performance-difference lemma (Kakade & Langford 2002, "Approximately optimal
    approximate reinforcement learning", lemma 6.1) the expected return of an episode is, for any way of acting, V* at
    its start plus the expected sum of A* over its steps.
    """

    @abstractmethod
    def solve(self, task: EnvTask) -> PyTree:
        """What `shortfall` needs to know of a task; computed once per trial."""

    @abstractmethod
    def shortfall(self, solution: PyTree, state: EnvState, moves: Int[Array, ""]) -> Float[Array, " actions"]:
        """A* of every action, at most 0, in a state that is reached after so many `moves` of an episode."""


def running(observation: Float[Array, "..."], reward: Float[Array, ""]) -> Step:
    """A `Step` after which the episode goes on."""
    return Step(observation, reward, jnp.asarray(False), jnp.asarray(False))
