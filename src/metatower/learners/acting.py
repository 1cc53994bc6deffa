"""Learners that act in worlds: what RL² has in common with the agents that it is compared with, and how trials go.

An `Agent` learns by remembering. Its `step` plays one episode of a `World`, its `loss` is minus the return of one more.
"""

import dataclasses
import importlib
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from metatower.core import Learner, Metrics
from metatower.core.keys import fork, fork_at
from metatower.envs.protocol import EnvTask
from metatower.envs.trial import Outcome, Seen, Trial, TrialState, World, select


class Acting(eqx.Module):
    """The state of an `Agent`: what it remembers, and what its last action was and brought."""

    memory: PyTree
    action: Float[Array, " size"]
    """The last action as `Seen` has it."""
    reward: Float[Array, ""]
    done: Float[Array, ""]
    score: Float[Array, ""]
    """The logarithm of the probability of all that it has done: what a gradient of its returns goes through."""


class Agent(Learner):
    """A learner of height 0 whose data is a `World`.

    Subclasses give `begin` and `decide`. Between episodes it forgets nothing; a fresh `start` is a fresh trial. The
    value of `loss` is minus the return of an episode; its derivative is the score-function estimator of the derivative
    of the *expected* return, through this episode and all before it (Foerster et al. 2018, "DiCE", for one derivative),
    for agents that say how likely their actions were.
    """

    actions: eqx.AbstractVar[int]
    """Numbers that encode an action: the length of `Seen.action`."""

    @abstractmethod
    def begin(self, *, key: PRNGKeyArray) -> PyTree:
        """What is remembered before a trial."""

    @abstractmethod
    def decide(self, memory: PyTree, seen: Seen, *, key: PRNGKeyArray) -> tuple[PyTree, Any, Metrics]:
        """What is remembered then, the action, and numbers about it (`log_probability`, `entropy`, `value`)."""

    def start(self, *, key: PRNGKeyArray) -> Acting:
        zero = jnp.zeros(())
        return Acting(self.begin(key=key), jnp.zeros(self.actions), zero, zero + 1, zero)

    def act(self, state: Acting, seen: Seen, *, key: PRNGKeyArray) -> tuple[Acting, Any]:
        """One action in a world that is played elsewhere; `seen` is what `Trial` would show there."""
        memory, action, about = self.decide(state.memory, seen, key=key)
        score = state.score + about.get("log_probability", 0.0)
        return dataclasses.replace(state, memory=memory, score=score), action

    def adapt(self, support: Any, *, key: PRNGKeyArray | None = None, **how: Any) -> Any:
        """The state after `steps` episodes in a `World`, or what `adapters.gymnasium.adapt` gives for its environments.

        Args:
            support: a `World`, with `key`; or an environment of Gymnasium, with `episodes`, `seed` and `horizon`.

        Raises:
            UserError: an environment that the agent cannot act in, or that breaks.
            ImportError: Gymnasium is not installed.
        """
        if isinstance(support, World):
            if key is None or how:
                raise TypeError("In a `World`, adapt takes `key` alone; `steps` of the agent says how many episodes.")
            return super().adapt(support, key=key)
        # by its name: adapters stand above learners, and only who uses this one needs Gymnasium
        return importlib.import_module("metatower.adapters.gymnasium").adapt(self, support, **how)

    def step(self, state: Acting, data: World, *, key: PRNGKeyArray) -> Acting:
        return self._episode(state, data, key)[0]

    def loss(self, state: Acting, data: World, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], Metrics]:
        _, rewards, scores = self._episode(state, data, key)
        value = -jnp.sum(rewards)
        # a reward depends on the actions before it: its derivative is that of their score
        surrogate = -jnp.sum(rewards * (scores - jax.lax.stop_gradient(scores)))
        return value + surrogate, {"return": -value}

    def _episode(self, state, data, key):
        """Plays one, and gives the state after it, its rewards, and the score at each."""
        _check(data)
        trial = Trial(data.environment, episodes=1)
        key_start, key_steps = fork(key, 2)
        place, seen = trial.start(key_start, data.task)

        def move(carry, index):
            place, state, observation, over = carry
            key_act, key_move = fork(fork_at(key_steps, index), 2)
            seen = Seen(observation, state.action, state.reward, state.done)
            after, action = self.act(state, seen, key=key_act)
            place, seen, outcome = trial.step(key_move, place, jax.lax.stop_gradient(action), data.task)
            after = dataclasses.replace(after, action=seen.action, reward=seen.reward, done=seen.done)
            after = select(over, state, after)
            return (place, after, seen.observation, outcome.over), (outcome.reward, after.score)

        carry = place, state, seen.observation, jnp.asarray(False)
        (_, state, _, _), (rewards, scores) = jax.lax.scan(move, carry, jnp.arange(trial.length))
        return state, rewards, scores


class Played(eqx.Module):
    """What happened in a trial, by step."""

    seen: Seen
    """`[time + 1, ...]`: before each action, and after the last."""
    action: Any
    outcome: Outcome
    live: Bool[Array, " time"]
    """Whether the trial was still going on."""
    about: Metrics
    """What the agent says of each of its actions, `[time]` each."""
    memory: PyTree
    """What it remembers at the end."""
    noted: Any = None
    """What `note` said before each action, `[time, ...]`; the agent has not seen it."""


def play(
    agent: Agent,
    trial: Trial,
    task: EnvTask,
    *,
    key: PRNGKeyArray,
    note: Callable[[TrialState], Any] | None = None,
) -> Played:
    """One whole trial. What happens depends on the agent, the task and the key only: use `jax.vmap` for many.

    Args:
        note: says something about the place of the trial before each action, for who watches: see `Played.noted`.
    """
    key_begin, key_start, key_steps = fork(key, 3)
    place, seen = trial.start(key_start, task)

    def move(carry, index):
        place, memory, seen, over = carry
        key_act, key_move = fork(fork_at(key_steps, index), 2)
        noted = None if note is None else note(place)
        memory, action, about = agent.decide(memory, seen, key=key_act)
        place, after, outcome = trial.step(key_move, place, action, task)
        # nothing begins after the last episode: what is seen then is its end
        last = select(outcome.over, outcome.observation, after.observation)
        after = Seen(last, after.action, after.reward, after.done)
        return (place, memory, after, outcome.over), (seen, action, outcome, ~over, about, noted)

    carry = place, agent.begin(key=key_begin), seen, jnp.asarray(False)
    (_, memory, end, _), steps = jax.lax.scan(move, carry, jnp.arange(trial.length))
    before, action, outcome, live, about, noted = steps
    seen = jax.tree.map(lambda x, last: jnp.concatenate([x, last[None]]), before, end)
    return Played(seen, action, outcome, live, about, memory, noted)


def _check(data: Any) -> None:
    if not isinstance(data, World):
        raise TypeError(
            f"An agent learns in a `World(environment, task)`, got {type(data).__name__}. Its lift takes "
            "`Worlds(environment)`; for an environment of another library see `metatower.adapters`."
        )
