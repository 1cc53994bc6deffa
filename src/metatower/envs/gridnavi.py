"""A gridworld with a hidden goal."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.envs.protocol import Discrete, Environment, Step, running
from metatower.tasks.chance import integer, uniforms

MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
"""Stay, or one cell further in a column or row; a move out of the grid is none."""


class GridNavi(Environment):
    """Find the goal cell of a 5 × 5 grid and stay there: +1 for every step that ends on it, −0.1 for any other.

    Zintgraf et al. 2020, "VariBAD: A very good method for Bayes-adaptive deep RL via meta-learning",
    https://arxiv.org/abs/1910.08348, section 5.1. Episodes start in a corner and take 15 steps; the goal is any cell
    but the 2 × 2 block at the start, equally likely; a trial of theirs has 4 episodes. The task is the goal's row and
    column.

    Differs from the paper in: a cell is observed as two one-hot vectors, of row and column, not as two numbers.

    Args:
        side: cells in a row.
        horizon: steps per episode.
        slip: how likely it is that a move at random is made in place of the one that was chosen; theirs has none.
    """

    side: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    slip: float = eqx.field(static=True)

    def __init__(self, side: int = 5, horizon: int = 15, slip: float = 0.0):
        if side < 3 or horizon < 1 or not 0 <= slip <= 1:
            raise ValueError(
                f"GridNavi: expected a side of at least 3, at least one step, and slip from 0 to 1, got {side}, "
                f"{horizon}, {slip}."
            )
        self.side, self.horizon, self.slip = side, horizon, float(slip)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (2 * self.side,)

    @property
    def actions(self) -> Discrete:
        return Discrete(len(MOVES))

    @property
    def goals(self) -> list[tuple[int, int]]:
        """All cells that can be the goal."""
        cells = [(row, column) for row in range(self.side) for column in range(self.side)]
        return [cell for cell in cells if max(cell) > 1]

    def sample_task(self, key: PRNGKeyArray) -> Int[Array, "2"]:
        (chance,) = uniforms(key, ())
        return jnp.array(self.goals, jnp.int32)[integer(chance, len(self.goals))]

    def reset(self, key: PRNGKeyArray, task: Int[Array, "2"]) -> tuple[Int[Array, "2"], Float[Array, " feature"]]:
        del key, task
        cell = jnp.zeros(2, jnp.int32)
        return cell, self._shown(cell)

    def step(
        self, key: PRNGKeyArray, state: Int[Array, "2"], action: Int[Array, ""], task: Int[Array, "2"]
    ) -> tuple[Int[Array, "2"], Step]:
        if self.slip:
            (chance,) = uniforms(key, (2,))
            action = jnp.where(chance[0] < self.slip, integer(chance[1], len(MOVES)), action)
        cell = jnp.clip(state + jnp.array(MOVES, jnp.int32)[action], 0, self.side - 1)
        reward = jnp.where(jnp.all(cell == task), 1.0, -0.1)
        return cell, running(self._shown(cell), reward)

    def _shown(self, cell):
        return jax.nn.one_hot(cell, self.side).reshape(-1)
