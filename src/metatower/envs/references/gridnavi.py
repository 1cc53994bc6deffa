"""What is best in `GridNavi`, exactly."""

from functools import cache

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metatower.envs.gridnavi import MOVES, GridNavi


def oracle_return(environment: GridNavi) -> float:
    """The return of an episode of who knows the goal and goes straight there, averaged over goals.

    >>> round(oracle_return(GridNavi()), 2)
    11.07
    """
    horizon = environment.horizon
    each = [
        (horizon - row - column + 1) - 0.1 * (row + column - 1) if row + column <= horizon else -0.1 * horizon
        for row, column in environment.goals
    ]
    return sum(each) / len(each)


def best_first_return(environment: GridNavi) -> float:
    """The most that an agent can expect of its first episode, in which it does not know the goal.

    By dynamic programming over the cell, the set of cells that the goal can still be in, and the time: while it is not
    found there is nothing to be learned but where it is not, and once found there is nothing to do but stay. It looks
    at one episode alone: what is best for several episodes together is not known.
    """
    goals, horizon, last = frozenset(environment.goals), environment.horizon, environment.side - 1

    @cache
    def total(cell: tuple[int, int], open_goals: frozenset, time: int) -> float:
        """The most expected from now on, times the number of goals, summed over those that are still open."""
        if time == horizon or not open_goals:
            return 0.0
        best = -float("inf")
        for move in MOVES:
            there = tuple(min(max(a + b, 0), last) for a, b in zip(cell, move, strict=True))
            if there == cell:  # to wait is never better than to do now what one would do then
                continue
            found = there in open_goals
            now = (horizon - time if found else 0) - 0.1 * (len(open_goals) - found)
            best = max(best, now + total(there, open_goals - {there} if found else open_goals, time + 1))
        return best

    return total((0, 0), goals, 0) / len(goals)


def oracle_action(task: Int[Array, "2"], observation: Float[Array, " feature"], time: Int[Array, ""]) -> Int[Array, ""]:
    """The action of who knows the goal: along the columns, then the rows."""
    del time
    row, column = jnp.argmax(observation.reshape(2, -1), axis=-1)
    moves = jnp.select([column < task[1], column > task[1], row < task[0], row > task[0]], [1, 3, 2, 4], 0)
    return moves.astype(jnp.int32)
