"""Whether an environment keeps its promises, found out from shapes alone, before anything is played."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from metatower.core.errors import UserError
from metatower.envs.protocol import Box, Discrete, Environment, Step


def check_environment(environment: Any) -> None:
    """Looks at the shapes and types of what an environment gives; nothing is computed.

    `Worlds` and `judge_trials` do it, so that a slip in an environment of one's own is one sentence about it, and not
    an error from somewhere inside a training.

    Raises:
        UserError: it raises, shows another shape than it says, or changes the kind of its state.
    """
    name = type(environment).__name__
    if not isinstance(environment, Environment):
        raise UserError(
            f"Expected an `Environment`, got {name}. For an environment of another library see `metatower.adapters`."
        )
    if not isinstance(environment.actions, Discrete | Box):
        raise UserError(f"{name}.actions: expected a Discrete or a Box, got {environment.actions!r}.")
    if environment.horizon < 1:
        raise UserError(f"{name}.horizon: expected at least 1 step per episode, got {environment.horizon}.")
    key = jax.eval_shape(lambda: jax.random.key(0))
    task = _called(f"{name}.sample_task(key)", environment.sample_task, key)
    where = f"{name}.reset(key, task)"
    state, observation = _pair(where, "observation", _called(where, environment.reset, key, task))
    _shape(where, "an observation", observation, environment.observation_shape)
    action = _called(f"{name}.actions.sample(key)", environment.actions.sample, key)
    where = f"{name}.step(key, state, action, task)"
    after, step = _pair(where, "Step", _called(where, environment.step, key, state, action, task))
    if not isinstance(step, Step):
        raise UserError(f"{where}: expected a Step second, got {type(step).__name__}.")
    _shape(where, "an observation", step.observation, environment.observation_shape)
    if step.observation.dtype != observation.dtype:
        raise UserError(
            f"{where}: expected an observation of type {observation.dtype}, as `reset` shows, got "
            f"{step.observation.dtype}."
        )
    _shape(where, "a reward", step.reward, ())
    if not jnp.issubdtype(step.reward.dtype, jnp.floating):
        raise UserError(f"{where}: expected a reward that is a float, got {step.reward.dtype}. Give `1.0 * reward`.")
    for what in ("terminated", "truncated"):
        _shape(where, what, getattr(step, what), ())
        if getattr(step, what).dtype != bool:
            raise UserError(f"{where}: expected {what} as a bool, got {getattr(step, what).dtype}.")
    before, later = _kinds(state), _kinds(after)
    if before != later:
        raise UserError(
            f"{where}: expected a state as `reset` gives it, {before or 'nothing'}, got {later or 'nothing'}. Both "
            "need the same structure, shapes and types, as one program plays all steps."
        )


def _called(where: str, call: Callable, *arguments: Any) -> Any:
    try:
        return jax.eval_shape(call, *arguments)
    except UserError:
        raise
    except Exception as error:  # whatever somebody's own environment may raise
        what = str(error).strip().splitlines()
        raise UserError(f"{where} raised {type(error).__name__}{f': {what[0]}' if what else ''}.") from error


def _pair(where: str, second: str, found: Any) -> Any:
    if not (isinstance(found, tuple) and len(found) == 2):
        raise UserError(f"{where}: expected a pair, (state, {second}), got {type(found).__name__}.")
    return found


def _shape(where: str, what: str, found: Any, expected: tuple[int, ...]) -> None:
    if getattr(found, "shape", None) != tuple(expected):
        shape = getattr(found, "shape", type(found).__name__)
        raise UserError(f"{where}: expected {what} of shape {tuple(expected)}, got {shape}.")


def _kinds(state: Any) -> str:
    flat, _ = jax.tree_util.tree_flatten_with_path(state)
    named = ((jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in flat)
    return ", ".join(f"{name or 'state'} {leaf.dtype}{list(leaf.shape)}" for name, leaf in named)
