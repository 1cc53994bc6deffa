"""What is best in `Navigation`, with and without knowing the goal."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metatower.envs.navigation import Navigation


def stay_return(environment: Navigation) -> float:
    """The expected return of who stays at the origin, exactly; hardly anything is better without
    knowing the goal (a path over a few near places gains 0.003).

    The mean distance of a uniform point of a square from its centre is half its side times (√2 + ln(1 + √2)) / 3.

    >>> round(stay_return(Navigation()), 2)
    -38.26
    """
    return -environment.horizon * float(environment.reach) * (math.sqrt(2) + math.log(1 + math.sqrt(2))) / 3


def oracle_returns(environment: Navigation, goals: Float[np.ndarray, "n 2"]) -> np.ndarray:
    """The return, for each goal, of who goes there by the largest moves, `[n]`."""
    left, total = np.abs(goals), np.zeros(len(goals))
    there = np.zeros(len(goals), bool)
    for _ in range(environment.horizon):
        left = np.maximum(left - environment.speed, 0)
        total -= np.where(there, 0, np.hypot(*left.T))
        there |= (left < environment.near).all(axis=1)
    return total


def oracle_return(environment: Navigation, points: int = 1000) -> float:
    """The expected return of who knows the goal, by the midpoint rule on `points`² goals.

    >>> round(oracle_return(Navigation()), 2)
    -0.51
    """
    side = float(environment.reach) * (np.arange(points) + 0.5) / points
    return float(oracle_returns(environment, np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)).mean())


def stay_action(task: Float[Array, "2"], observation: Float[Array, "2"], time: Int[Array, ""]) -> Float[Array, "2"]:
    """The move of who stays at the origin."""
    del task, time
    return jnp.zeros_like(observation)


def oracle_action(task: Float[Array, "2"], observation: Float[Array, "2"], time: Int[Array, ""]) -> Float[Array, "2"]:
    """The move of who knows the goal: straight there. The environment clips it."""
    del time
    return jnp.asarray(task - observation)
