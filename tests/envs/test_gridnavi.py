"""The grid with a hidden goal, and what is best in it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.envs import GridNavi
from metatower.envs.references.gridnavi import best_first_return, oracle_action, oracle_return
from metatower.evaluation.trials import judge_trials
from metatower.learners.informed import Oracle

KEY = jax.random.key(0)


def by_episode(agent, environment, **how):
    return judge_trials(agent, environment, **how)["by episode"]


GRID = GridNavi()


def walk(actions, task, grid=GRID):
    state, _ = grid.reset(KEY, task)
    steps = []
    for action in actions:
        state, step = grid.step(KEY, state, jnp.array(action), task)
        steps.append((tuple(state.tolist()), round(float(step.reward), 3)))
    return steps


def test_moves_and_rewards():
    steps = walk([1, 1, 2, 0, 3, 4, 3, 3, 3, 4], jnp.array([1, 2]))
    assert steps == [
        ((0, 1), -0.1),
        ((0, 2), -0.1),
        ((1, 2), 1.0),
        ((1, 2), 1.0),
        ((1, 1), -0.1),
        ((0, 1), -0.1),
        ((0, 0), -0.1),
        ((0, 0), -0.1),
        ((0, 0), -0.1),
        ((0, 0), -0.1),
    ]


def test_the_goal_is_any_cell_but_the_block_at_the_start():
    assert len(GRID.goals) == 21
    tasks = jax.vmap(GRID.sample_task)(jax.random.split(KEY, 4200))
    cells, count = np.unique(tasks, axis=0, return_counts=True)
    assert {tuple(cell) for cell in cells.tolist()} == set(GRID.goals)
    np.testing.assert_allclose(count, 200, atol=70)


def test_where_it_slips_so_many_moves_are_any_move():
    grid = GridNavi(slip=0.5)
    keys, task, middle = jax.random.split(KEY, 5000), jnp.array([4, 4]), jnp.array([2, 2])
    cells, _ = jax.vmap(lambda key: grid.step(key, middle, jnp.array(1), task))(keys)
    share = {tuple(cell): (cells == jnp.array(cell)).all(-1).mean() for cell in ((2, 3), (2, 2), (1, 2))}
    np.testing.assert_allclose([share[2, 3], share[2, 2], share[1, 2]], [0.6, 0.1, 0.1], atol=0.025)
    with pytest.raises(ValueError, match="slip from 0 to 1, got 5, 15, 2"):
        GridNavi(slip=2.0)


def test_the_observation_is_the_cell():
    _, seen = GRID.reset(KEY, jnp.array([4, 4]))
    np.testing.assert_array_equal(seen, [1, 0, 0, 0, 0, 1, 0, 0, 0, 0])


def test_the_oracle():
    np.testing.assert_allclose(oracle_return(GRID), 11.0714, atol=1e-4)

    @jax.jit
    @jax.vmap
    def played(goal):
        def step(carry, time):
            state, seen = carry
            state, step = GRID.step(KEY, state, oracle_action(goal, seen, time), goal)
            return (state, step.observation), step.reward

        return jax.lax.scan(step, GRID.reset(KEY, goal), jnp.arange(GRID.horizon))[1].sum()

    np.testing.assert_allclose(played(jnp.array(GRID.goals)).mean(), oracle_return(GRID), rtol=1e-5)


def test_the_oracle_as_an_agent():
    returns = by_episode(Oracle(5, oracle_action), GRID, episodes=2, trials=500, seed=0)
    np.testing.assert_allclose(returns.mean(), 11.07, atol=0.25)
    np.testing.assert_allclose(returns[:, 0], returns[:, 1], rtol=1e-5)


def test_the_best_first_episode_is_the_known_one():
    np.testing.assert_allclose(best_first_return(GRID), 4.00, atol=0.005)


def test_the_best_first_episode_by_trying_all_walks():
    grid = GridNavi(side=3, horizon=5)
    best = -np.inf
    for actions in itertools.product(range(5), repeat=5):
        cell, cells = (0, 0), []
        for action in actions:
            move = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))[action]
            cell = (min(max(cell[0] + move[0], 0), 2), min(max(cell[1] + move[1], 0), 2))
            cells.append(cell)
        total = sum((5 - cells.index(g)) - 0.1 * cells.index(g) if g in cells else -0.5 for g in grid.goals)
        best = max(best, total / len(grid.goals))
    np.testing.assert_allclose(best_first_return(grid), best)


def test_grids_that_cannot_be():
    with pytest.raises(ValueError, match="side of at least 3"):
        GridNavi(side=2)
