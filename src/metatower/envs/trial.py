"""Trials: several episodes in one and the same environment. The only place where anything is reset."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from metatower.core import Task, Tasks
from metatower.core.keys import fork
from metatower.envs.checked import check_environment
from metatower.envs.protocol import Environment, EnvState, EnvTask


class World(eqx.Module):
    """An environment with its task: what a learner of height 0 that acts is given as data."""

    environment: Environment
    task: EnvTask


class Worlds(Tasks):
    """The distribution of the worlds of an environment: learn in one, be judged in the same.

    Args:
        environment: gives the tasks; its array leaves are the distribution's parameters.

    Raises:
        UserError: the environment does not do what it says, see `check_environment`.
    """

    environment: Environment

    def __check_init__(self):
        check_environment(self.environment)

    def sample(self, key: PRNGKeyArray) -> Task:
        world = World(self.environment, self.environment.sample_task(key))
        return Task(world, world)


class Seen(eqx.Module):
    """What an agent sees before it acts: where it is, and what its last action was and brought."""

    observation: Float[Array, "..."]
    action: Float[Array, " size"]
    """The last action, one-hot or as a vector; zeros at the start of a trial."""
    reward: Float[Array, ""]
    """What it brought, also if it was the last of an episode; 0 at the start of a trial."""
    done: Float[Array, ""]
    """1 where `observation` is the first of an episode, else 0: the episode of the last action is over."""

    def flat(self) -> Float[Array, " features"]:
        """All of it as one vector: observation, action, reward, done."""
        return jnp.concatenate([self.observation.reshape(-1), self.action, self.reward[None], self.done[None]])

    @staticmethod
    def size(environment: Environment) -> int:
        """The length of `flat()` in this environment."""
        blank = jax.eval_shape(lambda: blank_seen(environment).flat())
        return blank.shape[0]


class Outcome(eqx.Module):
    """What a step of a trial brought."""

    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    """The episode has ended by itself: nothing in it comes after. In a trial the next episode does."""
    truncated: Bool[Array, ""]
    """The episode was cut off, by the environment or its horizon."""
    over: Bool[Array, ""]
    """The trial is over. What comes after does not count: its reward is 0."""
    observation: Float[Array, "..."]
    """What the environment showed after the action, before any reset: its value is that of a truncated episode."""

    @property
    def done(self) -> Bool[Array, "..."]:
        """The episode is over, for whatever reason."""
        return self.terminated | self.truncated


class TrialState(eqx.Module):
    """Where a trial is."""

    inner: EnvState
    moves: Int[Array, ""]
    """Steps taken in this episode."""
    steps: Int[Array, ""]
    """Steps taken in this trial."""
    episodes: Int[Array, ""]
    """Episodes finished in this trial."""
    over: Bool[Array, ""]


class Trial(eqx.Module):
    """Episodes in one environment, whose task stays the same; what was learned in one is there in the next.

    Duan et al. 2016, section 2.2. The reward and the end of an episode are in the same `Seen` as the first
    observation of the next one, so that no last reward is lost. The task is an argument and is never resampled. After
    the end of the trial the environment goes on, so that trials of unequal length can be stepped together, but
    nothing counts.

    Args:
        environment: what is played.
        episodes: how many; or
        steps: how many steps in all, over however many episodes.
    """

    environment: Environment
    episodes: int | None = eqx.field(static=True, default=None)
    steps: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        given = [each for each in (self.episodes, self.steps) if each is not None]
        if len(given) != 1 or given[0] < 1:
            raise ValueError(
                f"Trial: expected either episodes or steps, at least 1, got {self.episodes!r} and {self.steps!r}."
            )

        if self.environment.horizon < 1:
            raise ValueError(
                f"Trial: expected an environment with a horizon of at least 1, got {self.environment.horizon}."
            )

    @property
    def length(self) -> int:
        """The most steps that a trial can have."""
        return self.steps if self.episodes is None else self.episodes * self.environment.horizon  # type: ignore

    def start(self, key: PRNGKeyArray, task: EnvTask) -> tuple[TrialState, Seen]:
        """The first episode begins."""
        inner, observation = self.environment.reset(key, task)
        zero = jnp.zeros((), jnp.int32)
        state = TrialState(inner, zero, zero, zero, jnp.asarray(False))
        return state, seen_first(blank_seen(self.environment), observation)

    def step(
        self, key: PRNGKeyArray, state: TrialState, action: Any, task: EnvTask
    ) -> tuple[TrialState, Seen, Outcome]:
        """One action; where it ends the episode, the next one begins at once."""
        key_step, key_reset = fork(key, 2)
        inner, seen, outcome = self._move(key_step, state, action, task)
        fresh = self.environment.reset(key_reset, task)
        inner, observation = select(outcome.done, fresh, (inner, outcome.observation))
        zero = jnp.zeros((), jnp.int32)
        moves, steps = jnp.where(outcome.done, zero, state.moves + 1), state.steps + 1
        episodes = state.episodes + outcome.done
        return TrialState(inner, moves, steps, episodes, outcome.over), seen_first(seen, observation), outcome

    def _move(self, key, state, action, task):
        environment = self.environment
        inner, step = environment.step(key, state.inner, action, task)
        truncated = (step.truncated | (state.moves + 1 >= environment.horizon)) & ~step.terminated
        done = step.terminated | truncated
        end = state.episodes + done >= self.episodes if self.steps is None else state.steps + 1 >= self.steps
        reward = jnp.where(state.over, 0.0, step.reward)
        outcome = Outcome(reward, step.terminated, truncated, state.over | end, step.observation)
        encoded = environment.actions.encode(action)
        return inner, Seen(step.observation, encoded, reward, done.astype(reward.dtype)), outcome


def blank_seen(environment: Environment) -> Seen:
    """What is seen before a trial: nothing was done, nothing gained, and an episode is about to begin."""
    zero = jnp.zeros(())
    return Seen(jnp.zeros(environment.observation_shape), jnp.zeros(environment.actions.size), zero, zero + 1)


def seen_first(last: Seen, observation: Float[Array, "..."]) -> Seen:
    """The same with another observation: of the episode that begins, where the last one is over."""
    return Seen(observation, last.action, last.reward, last.done)


def select(condition: Bool[Array, ""], yes: Any, no: Any) -> Any:
    """`yes` where the condition holds, else `no`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
