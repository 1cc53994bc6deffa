"""Judging agents on whole trials: the return of every episode, the same worlds and the same luck for every agent."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from metatower.core.errors import UserError
from metatower.core.keys import fork
from metatower.core.sharding import mesh_of, on_each
from metatower.core.tower import over_tasks
from metatower.envs.trial import Trial
from metatower.evaluation.episodes import episode_keys
from metatower.learners.acting import Agent, play
from metatower.learners.informed import Informed
from metatower.training.progress import Progress, Silent


def trial_returns(
    agent: Agent,
    trial: Trial,
    *,
    trials: int,
    seed: int,
    chunk: int = 1000,
    together: int | None = None,
    show: Progress | None = None,
    title: str = "playing trials",
) -> np.ndarray:
    """The undiscounted return of each episode of each trial, from a fresh start on a fresh task.

    Trial i of a seed has the same task and the same random numbers of the world for every agent, however many
    trials there are and however they are grouped, so that differences between agents are paired.

    Args:
        agent: plays; it is told the task if it is `Informed`.
        trial: of so many episodes.
        trials: how many.
        seed: chooses them.
        chunk: trials per compiled call.
        together: trials stepped at the same time, all of a chunk if None. One at a time suits agents that plan now
            and then, as then only those that plan wait for it.
        show: how progress is shown; silent if None.
        title: the name of this job there.

    Returns:
        `[trials, episodes]`; their sum over episodes is the total reward of a trial.
    """
    if trial.episodes is None:
        raise UserError("trial_returns judges trials of a number of episodes: use Trial(environment, episodes=...).")
    if trials < 1:
        raise UserError(f"Expected at least one trial, got {trials}.")
    if not 0 <= seed < 2**32:
        raise UserError(f"Expected a seed from 0 to 2**32 - 1, got {seed}.")
    show, pieces = show or Silent(), []
    chunk = -(-min(trials, chunk) // jax.local_device_count()) * jax.local_device_count()
    show.start(title, trials)
    try:
        for first in range(0, trials, chunk):
            # a last, partly filled chunk is computed in full and cut off: one shape, one compilation
            piece = np.asarray(_returns(agent, trial, episode_keys(seed, first, chunk), together))
            pieces.append(piece)
            show.advance(min(chunk, trials - first), **{"return": float(piece.sum(axis=1).mean())})
    finally:
        show.finish()
    return np.concatenate(pieces)[:trials]


@eqx.filter_jit
def _returns(
    agent: Agent, trial: Trial, keys: Key[Array, " trial"], together: int | None
) -> Float[Array, "trial episode"]:
    def one(agent, trial, key):
        key_task, key_play = fork(key, 2)
        task = trial.environment.sample_task(key_task)
        agent = agent.knowing(task) if isinstance(agent, Informed) else agent
        outcome = play(agent, trial, task, key=key_play).outcome
        episode = jnp.cumsum(outcome.done) - outcome.done  # the last step of an episode belongs to it
        return outcome.reward @ jax.nn.one_hot(episode, trial.episodes, dtype=outcome.reward.dtype)

    def part(agent, trial, keys):
        return over_tasks(lambda key: one(agent, trial, key), keys, together)

    devices = jax.local_devices()
    return part(agent, trial, keys) if len(devices) == 1 else on_each(mesh_of(devices), part, (agent, trial), (keys,))
