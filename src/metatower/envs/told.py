"""Environments that show their task."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from metatower.envs.protocol import Box, Discrete, Environment, EnvState, EnvTask, Solvable, Step


class Told(Environment):
    """Another environment whose task is part of every observation, so that nothing is left to be found out.

    The same tasks, and the same luck, under the same keys. What the same training reaches here and not where the task
    is hidden is the price of not knowing it; if there is none, no meta-learning was needed.

    Args:
        environment: whose task is shown.
    """

    environment: Environment
    horizon: int = eqx.field(static=True)

    def __init__(self, environment: Environment):
        self.environment, self.horizon = environment, environment.horizon

    @property
    def observation_shape(self) -> tuple[int, ...]:
        told = jax.eval_shape(lambda: _flat(self.environment.sample_task(jax.random.key(0))))
        return (math.prod(self.environment.observation_shape) + told.shape[0],)

    @property
    def actions(self) -> Discrete | Box:
        return self.environment.actions

    def sample_task(self, key: PRNGKeyArray) -> EnvTask:
        return self.environment.sample_task(key)

    def reset(self, key: PRNGKeyArray, task: EnvTask) -> tuple[EnvState, Float[Array, " numbers"]]:
        state, observation = self.environment.reset(key, task)
        return state, _with(observation, task)

    def step(self, key: PRNGKeyArray, state: EnvState, action: Any, task: EnvTask) -> tuple[EnvState, Step]:
        state, step = self.environment.step(key, state, action, task)
        return state, Step(_with(step.observation, task), step.reward, step.terminated, step.truncated)


class ToldSolvable(Told, Solvable):
    """The same of an environment whose optimum is known; it is the same optimum."""

    def __init__(self, environment: Environment):
        Told.__init__(self, environment)

    def solve(self, task: EnvTask) -> PyTree:
        return self.environment.solve(task)  # type: ignore

    def shortfall(self, solution: PyTree, state: EnvState, moves: Int[Array, ""]) -> Float[Array, " actions"]:
        return self.environment.shortfall(solution, state, moves)  # type: ignore


def told(environment: Environment) -> Told:
    """`Told` of this environment, `Solvable` if it is."""
    return ToldSolvable(environment) if isinstance(environment, Solvable) else Told(environment)


def _with(observation: Float[Array, "..."], task: EnvTask) -> Float[Array, " numbers"]:
    return jnp.concatenate([observation.reshape(-1), _flat(task)])


def _flat(task: EnvTask) -> Float[Array, " numbers"]:
    leaves = jax.tree.leaves(task)
    bits = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]
    return jnp.concatenate([jnp.asarray(leaf, float).reshape(-1) for leaf in bits])
