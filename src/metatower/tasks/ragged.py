"""Tasks of unequal size in arrays of equal shape."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from metatower.core import Task, Tasks
from metatower.core.errors import UserError
from metatower.core.keys import fork
from metatower.nets.supervised import Examples
from metatower.tasks.chance import integer, uniforms
from metatower.tasks.episodes import Episodes


class Ragged(Tasks):
    """Episodes with fewer ways than they could have, and fewer shots, different ones for each class.

    The number of ways is uniform from `ways` to that of the episodes, and so is the number of shots of every class.
    What is left over is padding: its inputs and its `Examples.weight` are 0, its labels False in `Examples.ways`.

    Args:
        episodes: N ways at most and K shots at most.
        ways: least number of ways.
        shots: least number of shots.

    Raises:
        UserError: more than the episodes have, or fewer than 2 ways or 1 shot.
    """

    episodes: Episodes
    ways: int = eqx.field(static=True, default=2)
    shots: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        most: Any = self.episodes
        if not 2 <= self.ways <= most.ways or not 1 <= self.shots <= most.shots:
            raise UserError(
                f"Ragged: expected from 2 to {most.ways} ways and from 1 to {most.shots} shots, the sizes of the "
                f"episodes; got {self.ways} and {self.shots}."
            )

    def sample(self, key: PRNGKeyArray) -> Task:
        key_task, key_size = fork(key, 2)
        full, most = self.episodes.sample(key_task), self.episodes
        for_ways, for_shots = uniforms(key_size, (), (most.ways,))
        ways = jnp.arange(most.ways) < self.ways + integer(for_ways, most.ways - self.ways + 1)
        shots = self.shots + integer(for_shots, most.shots - self.shots + 1)
        here = ways[:, None] & (jnp.arange(most.shots) < shots[:, None])
        asked = jnp.broadcast_to(ways[:, None], (most.ways, most.queries))
        return Task(_masked(full.support, here, ways), _masked(full.query, asked, ways))


def _masked(data, here, ways) -> Examples:
    there = here.reshape(-1)
    x = jnp.where(there.reshape(-1, *[1] * (data.x.ndim - 1)), data.x, 0.0)
    return Examples(x, data.y, there.astype(x.dtype), ways)
