"""A family of distributions of bandits: what the arms are likely to pay differs from distribution to distribution."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.core import Task, Tasks
from metatower.envs.bandit import BernoulliBandit
from metatower.envs.trial import Worlds
from metatower.tasks.chance import uniforms


class BanditFamily(Tasks):
    """Distributions of `BernoulliBandit`s: every one has bounds of its own between which its arms' chances lie.

    The width of that interval is uniform between two given ones, and its place in [0, 1] is uniform, too. Where it is
    narrow, arms differ little, and a training has to find a faint signal in much noise. The support and the query of a
    distribution are its `Worlds`; bandits are drawn afresh from a continuum, so that no two trials share one.

    Args:
        arms: of every bandit.
        width: the least and the largest width of a distribution.
    """

    width: Float[Array, "2"]
    arms: int = eqx.field(static=True)

    def __init__(self, arms: int = 5, width: tuple[float, float] = (0.3, 0.8)):
        if arms < 1 or not 0 <= width[0] <= width[1] <= 1:
            raise ValueError(f"BanditFamily: expected an arm and widths 0 <= a <= b <= 1, got {arms} and {width}.")
        self.width, self.arms = jnp.array(width), arms

    def sample(self, key: PRNGKeyArray) -> Task:
        (chance,) = uniforms(key, (2,))
        width = self.width[0] + (self.width[1] - self.width[0]) * chance[0]
        low = (1 - width) * chance[1]
        bounds = jnp.stack([low, low + width])
        worlds = Worlds(eqx.tree_at(lambda bandit: bandit.bounds, BernoulliBandit(self.arms), bounds))
        return Task(worlds, worlds)
