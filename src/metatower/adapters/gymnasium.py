"""Environments of Gymnasium as worlds: a trained agent learns in one that is not written in JAX."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

try:
    import gymnasium
    from gymnasium.vector import AutoresetMode, VectorEnv
except ImportError as error:
    raise ImportError("This adapter needs Gymnasium 1.1 or newer: pip install 'metatower[gymnasium]'.") from error

from metatower.core.errors import UserError
from metatower.core.keys import fork, fork_at
from metatower.envs.protocol import Box, Discrete
from metatower.envs.trial import Outcome, Seen

ENDLESS = 10_000
"""Steps of an episode after which it is asked how long it shall last."""
CHECKER = "Try it by itself with gymnasium.utils.env_checker.check_env."
RETURNS_OF_RESET = "an observation and a dict"
RETURNS_OF_STEP = "an observation, a reward, terminated, truncated and a dict"


class HostTrial:
    """The twin of `envs.Trial` for environments that run on the host: the only place where they are reset.

    All arrays are NumPy's, with the environments that run side by side as their first axis, of length 1 for a single
    one. The task is what the environment has made of itself: it must not choose another one in `reset`.

    Args:
        env: a `gymnasium.Env`, or a vector environment made with `autoreset_mode=AutoresetMode.DISABLED`.
        episodes: of a trial.
        horizon: steps after which an episode that does not end by itself is cut off (as truncated); without it an
            episode that has not ended after 10,000 steps is an error.

    Raises:
        UserError: spaces that no agent here acts in, an environment that resets itself; in `start` and `step`, one
            that raises, shows what its space does not allow, or pays what is no number.
    """

    def __init__(self, env: Any, episodes: int, horizon: int | None = None):
        if not isinstance(env, gymnasium.Env | VectorEnv):
            raise UserError(
                f"Expected a gymnasium.Env or a vector of them, got {type(env).__name__}. "
                "Make one with gymnasium.make(...)."
            )
        for name, number in (("episodes", episodes), ("horizon", 1 if horizon is None else horizon)):
            if not isinstance(number, int | np.integer) or number < 1:
                raise UserError(f"Expected {name} as an integer of at least 1, got {number!r}.")
        self.horizon = horizon
        self.env, self.episodes = env, episodes
        self.many = isinstance(env, VectorEnv)
        if self.many and env.metadata.get("autoreset_mode") != AutoresetMode.DISABLED:
            raise UserError(
                "A vector environment that resets itself hides the end of an episode: make it with "
                "autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED."
            )
        self.lanes = env.num_envs if self.many else 1
        for space in ("observation_space", "action_space"):
            if getattr(env, space, None) is None:
                raise UserError(f"{type(env).__name__} has no {space}: say what it shows and takes. {CHECKER}")
        self.action_space = env.single_action_space if self.many else env.action_space
        self.observation_space = env.single_observation_space if self.many else env.observation_space
        self.actions = _actions(self.action_space)
        self.observation_shape = _observation_shape(self.observation_space)
        self.done = self.finished = self.moves = np.zeros(0)

    def start(self, seed: int | None = None) -> Seen:
        """The first episode of a trial begins; what is seen is `[lanes, ...]`."""
        self.done, self.finished = np.ones(self.lanes, bool), np.zeros(self.lanes, int)
        self.moves = np.zeros(self.lanes, int)
        zero = np.zeros(self.lanes, np.float32)
        nothing = np.zeros((self.lanes, self.actions.size), np.float32)
        self.seen = _seen(np.zeros((self.lanes, *self.observation_shape), np.float32), nothing, zero, zero + 1)
        self._reset(seed)
        return self.seen

    def step(self, actions: np.ndarray) -> tuple[Seen, Outcome]:
        """One action `[lanes, ...]` in each; where it ends an episode, the next one begins at once.

        A lane whose trial is over goes on, and nothing counts, until all are.
        """
        over = self.finished >= self.episodes
        if over.all():
            raise UserError("The trial is over (or was never begun): call `start`.")
        given = self._given(np.asarray(actions))
        shown, reward, terminated, truncated = self._asked("step", self._step, given)
        observation = self._observed(shown, "step", over)
        reward = np.where(over, 0, _single(reward))
        if not np.isfinite(reward).all():
            raise UserError(
                f"{self._name} gave the reward {_first(reward)}, which is no number (or none that float32 holds), for "
                f"{given}. {CHECKER}"
            )
        self.moves = self.moves + 1
        if self.horizon is not None:
            truncated = truncated | (self.moves >= self.horizon)
        self.done = terminated | truncated
        if self.horizon is None and (~over & ~self.done & (self.moves >= ENDLESS)).any():
            raise UserError(
                f"{self._name} has not ended its episode after {ENDLESS:,} steps. Say how long it shall be: horizon=…, "
                "or gymnasium.wrappers.TimeLimit."
            )
        self.moves = np.where(self.done, 0, self.moves)
        self.finished = self.finished + self.done
        finished = self.finished >= self.episodes
        fields = reward, terminated, truncated & ~terminated, finished, observation
        outcome = jax.tree.unflatten(_structure(Outcome), fields)
        self.seen = _seen(observation, _encoded(self.actions, actions), reward, self.done.astype(np.float32))
        if self.done.any() and not finished.all():
            self._reset(None)
        return self.seen, outcome

    def _reset(self, seed: int | None) -> None:
        """New episodes where `done`."""

        def reset():
            if not self.many:
                return _parts(self.env.reset(seed=seed), 2, RETURNS_OF_RESET)[0]
            options = None if self.done.all() else {"reset_mask": self.done.copy()}
            return _parts(self.env.reset(seed=seed, options=options), 2, RETURNS_OF_RESET)[0]

        shown = self._observed(self._asked("reset", reset), "reset", self.finished >= self.episodes)
        done = self.done.reshape(-1, *[1] * (shown.ndim - 1))
        self.seen = eqx.tree_at(lambda s: s.observation, self.seen, np.where(done, shown, self.seen.observation))

    def _step(self, given):
        returned = self.env.step(given if self.many else given[0])
        observation, reward, terminated, truncated, _ = _parts(returned, 5, RETURNS_OF_STEP)
        if reward is None:
            raise TypeError("expected a number as the reward, got None")
        reward = np.asarray(reward, float).reshape(self.lanes)
        return observation, reward, self._flags("terminated", terminated), self._flags("truncated", truncated)

    def _flags(self, name: str, found: Any) -> np.ndarray:
        found = np.asarray(found).reshape(self.lanes)
        if found.dtype != bool and not np.isin(found, (0, 1)).all():
            raise TypeError(f"expected {name} as a bool, got {found[0]!r}")
        return found.astype(bool)

    def _asked(self, what: str, question: Any, *arguments: Any) -> Any:
        try:
            return question(*arguments)
        except Exception as error:
            said = str(error).strip().splitlines()
            words = f"{type(error).__name__}{f': {said[0]}' if said else ''}"
            raise UserError(f"{self._name} raised {words} in its {what}. {CHECKER}") from error

    def _given(self, actions: np.ndarray) -> np.ndarray:
        if not np.isfinite(actions).all():
            raise UserError(f"The agent's action is {_first(actions)}, which is no number. Has its training diverged?")
        if isinstance(self.actions, Discrete):
            return actions.astype(np.int64) + int(self.action_space.start)
        low, high = self.action_space.low, self.action_space.high
        return np.clip(actions.reshape(-1, *self.actions.shape), low, high).astype(self.action_space.dtype)

    def _observed(self, shown: Any, what: str, over: np.ndarray | None = None) -> np.ndarray:
        """What was shown as floating-point numbers, `[lanes, ...]`; where it is `over` they may be none."""
        try:
            shown = np.asarray(shown) if self.many else np.asarray(shown)[None]
        except ValueError as error:
            raise UserError(f"{self._name} shows in its {what} what is no array of numbers: {error}.") from error
        expected = (self.lanes, *self.observation_space.shape)
        if shown.shape != expected:
            raise UserError(
                f"{self._name} shows an observation of shape {shown.shape[1:]} in its {what}, where its "
                f"observation_space says {expected[1:]}. {CHECKER}"
            )
        if (not np.issubdtype(shown.dtype, np.number) and shown.dtype != bool) or np.iscomplexobj(shown):
            raise UserError(f"{self._name} shows observations of type {shown.dtype} in its {what}, not numbers.")
        if isinstance(self.observation_space, gymnasium.spaces.Discrete):
            n, start = int(self.observation_space.n), int(self.observation_space.start)
            wrong = shown[~np.isin(shown, np.arange(start, start + n))]
            if wrong.size:
                raise UserError(
                    f"{self._name} shows {wrong[0]} in its {what}, where its observation_space has the integers from "
                    f"{start} to {start + n - 1}. {CHECKER}"
                )
            return np.eye(n, dtype=np.float32)[shown.astype(int) - start]
        shown = _single(shown)
        if over is not None and over.any():
            shown = np.where(over.reshape(-1, *[1] * (shown.ndim - 1)), np.nan_to_num(shown), shown)
        if not np.isfinite(shown).all():
            raise UserError(
                f"{self._name} shows {_first(shown)} in its {what}, which is no number (or none that float32 holds). "
                f"{CHECKER}"
            )
        return shown

    @property
    def _name(self) -> str:
        spec = getattr(self.env, "spec", None)
        kind = type(getattr(self.env, "unwrapped", self.env)).__name__
        return f"The environment {kind if spec is None else spec.id}"


class Adapted:
    """An agent that has learned in an environment.

    Attributes:
        returns: the undiscounted return of each episode, `[episodes, lanes]`.
        state: the agent's state for each lane.
        seen: the end of the last episode: its action and reward have not reached the state yet.
    """

    def __init__(self, agent: Any, trial: HostTrial, state: Any, seen: Seen, returns: np.ndarray, key: PRNGKeyArray):
        self.agent, self.state, self.seen, self.returns = agent, state, seen, returns
        self._trial, self._key, self._fresh, self._step = trial, key, True, 0

    def act(self, observation: Any, reward: Any = None, done: Any = False) -> Any:
        """The action for what one environment shows, as it takes it; remembers that it was shown.

        Args:
            observation: as the environment shows it.
            reward: what the last action brought: an agent learns from it, so it must be told. Not for the first action
                of all, which follows the adaptation.
            done: whether that ended an episode, of which `observation` begins the next.

        Raises:
            UserError: no reward, or one that is no number; an observation of another shape.
        """
        shown = self._trial._observed(observation if self._trial.many else np.asarray(observation), "use")
        if self._fresh:  # what the last action of the adaptation brought is known
            reward_seen, done_seen = self.seen.reward, self.seen.done
        elif reward is None:
            raise UserError(
                "Say what the last action brought: act(observation, reward, done). The agent learns from it."
            )
        else:
            reward_seen, done_seen = (np.broadcast_to(_single(x), (self._trial.lanes,)) for x in (reward, done))
            if not np.isfinite(reward_seen).all():
                raise UserError(f"Expected the reward of the last action as a number, got {_first(reward_seen)}.")
        seen, self._fresh = _seen(shown, self.seen.action, reward_seen, done_seen), False
        self.state, actions = _acted(self.agent, self.state, seen, self._key, np.asarray(self._step))
        self._step += 1
        self.seen = _seen(shown, _encoded(self._trial.actions, actions), reward_seen, done_seen)
        given = self._trial._given(actions)
        return given if self._trial.many else given[0]


def adapt(agent: Any, env: Any, *, episodes: int = 3, seed: int = 0, horizon: int | None = None) -> Adapted:
    """The agent after so many episodes in an environment, in each lane of a vector environment by itself.

    Args:
        agent: has `start(*, key)` and `act(state, seen, *, key) -> (state, action)`: any `learners.acting.Agent`,
            trained for observations and actions of the same kind.
        env: see `HostTrial`.
        episodes: how many.
        seed: of the agent and of the environment's first reset.
        horizon: steps after which an episode that does not end by itself is cut off, see `HostTrial`.

    Raises:
        UserError: an environment that the agent cannot act in, or that breaks (`HostTrial`).
    """
    trial, root = HostTrial(env, episodes, horizon), jax.random.key(seed)
    key_start, key_steps, key_after = fork(root, 3)
    _check(agent, trial)
    state = _start(agent, key_start, trial.lanes)
    seen, returns = trial.start(seed), np.zeros((episodes, trial.lanes))
    lanes, step = np.arange(trial.lanes), 0
    kept, last = state, seen
    while (trial.finished < episodes).any():
        live, episode = trial.finished < episodes, np.minimum(trial.finished, episodes - 1)
        state, actions = _acted(agent, state, seen, key_steps, np.asarray(step))
        seen, outcome = trial.step(actions)
        returns[episode, lanes] += outcome.reward
        kept, last = _where(live, state, kept), _where(live, seen, last)
        step += 1
    return Adapted(agent, trial, kept, last, returns, key_after)


def _check(agent: Any, trial: HostTrial) -> None:
    seen = Seen(*(jnp.zeros(shape) for shape in (trial.observation_shape, (trial.actions.size,), (), ())))
    key = jax.random.key(0)
    here = f"observations of shape {trial.observation_shape} and actions {trial.actions}"
    size = getattr(agent, "actions", trial.actions.size)
    if isinstance(size, int) and size != trial.actions.size:
        raise UserError(
            f"The agent has {size} numbers for an action; {trial._name[0].lower()}{trial._name[1:]} has {here}. Take "
            "an agent that was trained for as many."
        )
    if not (hasattr(agent, "start") and hasattr(agent, "act")):
        raise UserError(
            f"Expected an agent with `start` and `act`, such as RL²; got {type(agent).__name__}. Learners that adapt "
            "by gradient steps play in worlds of JAX: see docs/meta-rl.md."
        )
    try:
        _, action = eqx.filter_eval_shape(lambda: agent.act(agent.start(key=key), seen, key=key))
    except Exception as error:
        raise UserError(
            f"The agent cannot act on {here}: it must have been trained in an environment with the same."
        ) from error
    whole = jnp.issubdtype(action.dtype, jnp.integer)
    wanted = () if isinstance(trial.actions, Discrete) else trial.actions.shape
    if action.shape != wanted or whole != isinstance(trial.actions, Discrete):
        raise UserError(
            f"The agent's actions are {action.dtype} of shape {action.shape}, but the environment has {trial.actions}. "
            "It must have been trained in an environment with the same."
        )


@functools.cache
def _structure(kind: type) -> Any:
    """Of a `Seen` or `Outcome` whose fields have the axis of lanes: to be made without the checks, which are of one."""
    flag, number = jnp.zeros(1, bool), jnp.zeros(1)
    like = {"action": number[None], "terminated": flag, "truncated": flag, "over": flag}
    return jax.tree.structure(jax.vmap(kind)(*(like.get(each.name, number) for each in dataclasses.fields(kind))))


def _seen(*fields: Any) -> Seen:
    return jax.tree.unflatten(_structure(Seen), fields)


def _encoded(space: Discrete | Box, actions: np.ndarray) -> np.ndarray:
    """`space.encode` of every lane."""
    if isinstance(space, Discrete):
        return np.eye(space.n, dtype=np.float32)[actions]
    return np.asarray(actions, np.float32).reshape(len(actions), -1)


@eqx.filter_jit
def _start(agent: Any, key: PRNGKeyArray, lanes: int) -> Any:
    return jax.vmap(lambda key: agent.start(key=key))(fork(key, lanes))


@eqx.filter_jit
def _act(agent: Any, state: Any, seen: Seen, key: PRNGKeyArray, step: Int[np.ndarray, ""] | Int[Array, ""]) -> Any:
    """States and actions of all lanes; everything that is done each step in one compiled call."""
    keys = fork(fork_at(key, jnp.asarray(step)), len(seen.reward))
    state, actions = jax.vmap(lambda state, seen, key: agent.act(state, seen, key=key))(state, seen, keys)
    numbers = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state) if eqx.is_inexact_array(leaf)]
    return state, actions, jnp.all(jnp.array(numbers, bool))


def _acted(agent: Any, state: Any, seen: Seen, key: PRNGKeyArray, step: np.ndarray) -> tuple[Any, np.ndarray]:
    """States and actions of all lanes, if the states are numbers."""
    state, actions, sound = _act(agent, state, seen, key, step)
    if not sound:
        raise UserError(
            "The agent's memory holds what is no number. Has its training diverged? `metatower evaluate` shows what it "
            "is worth where it was trained."
        )
    return state, np.asarray(actions)


def _where(live: np.ndarray, new: Any, old: Any) -> Any:
    """`new` in the lanes that are live, else `old`."""
    if live.all():
        return new
    return jax.tree.map(lambda a, b: jnp.where(live.reshape(-1, *[1] * (jnp.ndim(a) - 1)), a, b), new, old)


def _actions(space: Any) -> Discrete | Box:
    if isinstance(space, gymnasium.spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (tuple(float(x) for x in side.reshape(-1)) for side in (space.low, space.high))
        return Box(low, high, space.shape)
    raise UserError(f"Expected actions in a Discrete or floating-point Box space, got {space}. Wrap the environment.")


def _observation_shape(space: Any) -> tuple[int, ...]:
    if isinstance(space, gymnasium.spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, gymnasium.spaces.Box | gymnasium.spaces.MultiBinary):
        return tuple(space.shape)
    raise UserError(
        f"Expected observations in a Box or Discrete space, got {space}. "
        "gymnasium.wrappers.FlattenObservation makes one of a Dict or Tuple."
    )


def _parts(given: Any, number: int, expected: str) -> tuple:
    """What `reset` or `step` returned, if it has as many parts as Gymnasium's interface says."""
    if not isinstance(given, tuple) or len(given) != number:
        count = f"{len(given)} things" if isinstance(given, tuple) else f"a {type(given).__name__}"
        raise TypeError(f"expected it to return {expected}, got {count}")
    return given


def _single(values: Any) -> np.ndarray:
    """As float32; what is too large is infinite, without a warning."""
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(np.float32)


def _first(values: np.ndarray) -> Any:
    return np.asarray(values)[~np.isfinite(values)].reshape(-1)[0]
