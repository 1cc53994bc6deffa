"""Judging agents on whole trials: what they gain in each episode, on the same worlds and with the same luck."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metatower.core import Metrics
from metatower.core.errors import UserError
from metatower.core.keys import fork
from metatower.core.sharding import mesh_of, on_each
from metatower.core.tower import over_tasks
from metatower.envs.checked import check_environment
from metatower.envs.protocol import Environment, EnvTask
from metatower.envs.trial import Trial
from metatower.evaluation.episodes import episode_keys
from metatower.learners.acting import Agent, Played, play
from metatower.learners.informed import Informed
from metatower.training.progress import Progress, Silent

Also = Callable[[Played, EnvTask], Metrics]


def judge_trials(
    agent: Agent,
    environment: Environment,
    *,
    episodes: int,
    trials: int,
    seed: int,
    chunk: int = 1000,
    together: int | None = None,
    also: Also | None = None,
    show: Progress | None = None,
    title: str = "judging",
) -> dict[str, np.ndarray]:
    """What an agent gains in fresh trials.

    Trial i of a seed has the same task and the same random numbers for every agent, and they depend on nothing but
    (seed, i): differences between agents are paired.

    Args:
        agent: plays; it is told the task if it is `Informed`.
        environment: whose tasks.
        episodes: of one trial.
        trials: how many.
        seed: chooses tasks and luck.
        chunk: trials of one compiled call.
        together: trials played at the same time, all of a chunk if None. One at a time suits agents that plan now and
            then, as all wait for those that do.
        also: other numbers of a trial.

    Returns:
        "return" `[trials]`, of the whole trial; "by episode" `[trials, episodes]`; the mean "entropy" of the agent's
        decisions by episode, where it says so; and what `also` gives.

    Raises:
        UserError: no trials, an environment that does not do what it says, or that pays what is no number.
    """
    if trials < 1 or episodes < 1:
        raise UserError(f"Expected at least one trial of one episode, got {trials} of {episodes}.")
    check_environment(environment)
    show = show or Silent()
    devices = jax.local_device_count()
    chunk = -(-min(chunk, trials) // devices) * devices
    pieces = []
    show.start(title, trials)
    try:
        for first in range(0, trials, chunk):
            keys = episode_keys(seed, first, chunk)
            piece = jax.device_get(_judge(agent, environment, episodes, also, together, keys))
            pieces.append(piece)
            gained = piece["return"][: trials - first]
            bad = np.flatnonzero(~np.isfinite(gained))
            if len(bad):
                raise UserError(
                    f"Trial {first + bad[0]} of seed {seed} in {type(environment).__name__} gained {gained[bad[0]]}, "
                    f"and {len(bad) - 1} more of {len(gained)} no number either. Look at what `step` pays there, and "
                    "whether the agent's actions are numbers."
                )
            show.advance(min(chunk, trials - first), **{"return": float(piece["return"].mean())})
    finally:
        show.finish()
    return {name: np.concatenate([piece[name] for piece in pieces])[:trials] for name in pieces[0]}


def by_episode(played: Played, values: Float[Array, " time"], episodes: int) -> Float[Array, " episode"]:
    """The sum of `values` over the steps of each episode."""
    done = played.outcome.done & played.live
    number = jnp.cumsum(done) - done
    mine = (number[:, None] == jnp.arange(episodes)) & played.live[:, None]
    return jnp.sum(jnp.where(mine, values[:, None], 0.0), axis=0)


@eqx.filter_jit
def _judge(agent, environment, episodes, also, together, keys):
    def one(agent, environment, key):
        key_task, key_play = fork(key, 2)
        task = environment.sample_task(key_task)
        agent = agent.knowing(task) if isinstance(agent, Informed) else agent
        played = play(agent, Trial(environment, episodes=episodes), task, key=key_play)
        gained = by_episode(played, played.outcome.reward, episodes)
        found = {"return": jnp.sum(gained), "by episode": gained}
        if "entropy" in played.about:
            steps = by_episode(played, jnp.ones(played.live.shape), episodes)
            found["entropy"] = by_episode(played, played.about["entropy"], episodes) / jnp.maximum(steps, 1)
        return found if also is None else {**found, **also(played, task)}

    def part(agent, environment, keys):
        return over_tasks(lambda key: one(agent, environment, key), keys, together)

    devices = jax.local_devices()
    if len(devices) == 1:
        return part(agent, environment, keys)
    return on_each(mesh_of(devices), part, (agent, environment), (keys,))
