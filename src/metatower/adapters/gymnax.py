"""Environments of gymnax as distributions of tasks: their parameters are the task."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

try:
    import gymnax
    from gymnax.environments import spaces
except ImportError as error:
    raise ImportError(f"This adapter needs gymnax 1.0 or newer: pip install 'metatower[gymnax]' ({error}).") from error

from metatower.core.errors import UserError
from metatower.core.keys import fork
from metatower.envs.protocol import Box, Discrete, Environment, Step


class Gymnax(Environment):
    """An environment of gymnax, stepped by `step_env` and `reset_env`, which neither reset nor choose by themselves.

    The task is gymnax's parameters, of which those in `vary` are drawn uniformly, and the key with which episodes are
    reset if `same_reset`.

    Args:
        env: a name that gymnax knows, or an environment of it.
        vary: least and largest value of the parameters that differ between tasks.
        params: of the environment; its own if None.
        derive: makes the parameters consistent after some were drawn: gymnax's CartPole has the sum of its masses as a
            parameter of its own.
        same_reset: every episode of a trial begins alike. For environments that draw what is the task here, a goal
            perhaps, in their reset: otherwise it would be another one in each episode.
        horizon: steps per episode, its `max_steps_in_episode` if None.

    Raises:
        UserError: an unknown name or parameter, spaces that no agent here acts in, an older gymnax.
    """

    bounds: Float[Array, "varied 2"]
    params: PyTree
    env: Any = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    derive: Callable[[Any], Any] | None = eqx.field(static=True)
    same_reset: bool = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    space: Discrete | Box

    def __init__(
        self,
        env: Any,
        vary: Mapping[str, tuple[float, float]] | None = None,
        *,
        params: Any = None,
        derive: Callable[[Any], Any] | None = None,
        same_reset: bool = False,
        horizon: int | None = None,
    ):
        if not hasattr(gymnax.environments.environment.Environment, "is_truncated"):
            raise UserError(
                f"Expected gymnax 1.0 or newer, which tells ends from time limits, got {gymnax.__version__}."
            )
        if isinstance(env, str):
            try:
                env, own = gymnax.make(env)
            except ValueError as error:
                raise UserError(f"gymnax has no environment {env!r}: {error}") from error
        else:
            own = env.default_params
        params, vary = own if params is None else params, dict(vary or {})
        if unknown := [name for name in vary if not hasattr(params, name)]:
            raise UserError(f"{env.name} has no parameters {', '.join(unknown)}; it has {', '.join(vars(params))}.")
        self.env, self.names, self.derive, self.same_reset = env, tuple(vary), derive, same_reset
        self.bounds = jnp.array(list(vary.values()), float).reshape(-1, 2)
        limit = getattr(params, "max_steps_in_episode", None) if horizon is None else horizon
        if limit is None:
            raise UserError(f"{env.name} has no max_steps_in_episode: say `horizon=`.")
        self.horizon = int(limit)
        self.shape, self.space = _shape(env.observation_space(params)), _space(env.action_space(params))
        self.params = jax.tree.map(jnp.asarray, params)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.shape

    @property
    def actions(self) -> Discrete | Box:
        return self.space

    def sample_task(self, key: PRNGKeyArray) -> tuple[Any, PRNGKeyArray]:
        key_params, key_reset = fork(key, 2)
        chance = jax.random.uniform(key_params, (len(self.names),))
        drawn = self.bounds[:, 0] + (self.bounds[:, 1] - self.bounds[:, 0]) * chance
        params = self.params.replace(**{name: drawn[i] for i, name in enumerate(self.names)})
        return params if self.derive is None else self.derive(params), key_reset

    def reset(self, key: PRNGKeyArray, task: tuple[Any, PRNGKeyArray]) -> tuple[Any, Float[Array, "..."]]:
        params, key_reset = task
        observation, state = self.env.reset_env(key_reset if self.same_reset else key, params)
        return jax.tree.map(jnp.asarray, state), jnp.asarray(observation, float)

    def step(self, key: PRNGKeyArray, state: Any, action: Any, task: tuple[Any, PRNGKeyArray]) -> tuple[Any, Step]:
        params, _ = task
        if isinstance(self.space, Box):
            action = self.space.clip(action)
        observation, state, reward, terminated, _ = self.env.step_env(key, state, action, params)
        terminated = jnp.asarray(terminated, bool)
        truncated = jnp.asarray(self.env.is_truncated(state, params), bool) & ~terminated
        return state, Step(jnp.asarray(observation, float), jnp.asarray(reward, float), terminated, truncated)


def _shape(space: Any) -> tuple[int, ...]:
    if isinstance(space, spaces.Box):
        return tuple(space.shape)
    raise UserError(f"Expected observations in a Box of gymnax, got {type(space).__name__}.")


def _space(space: Any) -> Discrete | Box:
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, spaces.Box):
        low, high = (
            tuple(float(x) for x in np.broadcast_to(np.asarray(side), space.shape).reshape(-1))
            for side in (space.low, space.high)
        )
        return Box(low, high, tuple(space.shape))
    raise UserError(f"Expected actions in a Discrete or Box of gymnax, got {type(space).__name__}.")
