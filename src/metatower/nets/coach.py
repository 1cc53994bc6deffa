"""Coaches: who changes the hyper-parameters of a policy-gradient training while it runs."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from metatower.nets.mlp import Linear
from metatower.nets.recurrent import GRU

LEVERS = ("step size", "entropy", "horizon", "trace")
"""What a coach moves, through logarithms: a factor of the rule's steps, the weight of the entropy, 1 − γ and 1 − λ."""
NOTED = 12
"""Numbers that are seen of a training."""

Advice = tuple[PyTree, Float[Array, " lever"]]


class Coach(eqx.Module):
    """Sees how a training goes, and moves its levers."""

    @abstractmethod
    def start(self) -> PyTree:
        """The memory before a training."""

    @abstractmethod
    def advise(
        self, memory: PyTree, noted: Float[Array, " NOTED"], turn: Bool[Array, ""], *, key: PRNGKeyArray
    ) -> Advice:
        """The next memory, and what is added to the logarithms of `LEVERS`.

        Args:
            noted: what is seen of the training, see `Coached`.
            turn: whether it is the manager's turn, which comes once in several steps.
        """


class ManagerCoach(Coach):
    """A recurrent manager that sets what is trained for, now and then, and a worker that sets the pace, at every step.

    The manager moves the weight of the entropy and both horizons, and its memory tells the worker what it is after; the
    worker moves the size of the steps. With all heads at zero nothing is changed.

    Args:
        size: units of the manager's memory.
        hidden: tanh units of the worker.
    """

    manager: GRU
    aim: Linear
    worker: Linear
    pace: Linear
    reflex: Float[Array, "input lever"]

    def __init__(self, *, key: PRNGKeyArray, size: int = 8, hidden: int = 8):
        keys = jax.random.split(key, 4)
        self.manager = GRU(NOTED, size, key=keys[0])
        self.aim = Linear(size, len(LEVERS) - 1, key=keys[1], scale=0.0)
        self.worker = Linear(NOTED + size, hidden, key=keys[2])
        self.pace = Linear(hidden, 1, key=keys[3], scale=0.0)
        self.reflex = jnp.zeros((NOTED, len(LEVERS)))

    def start(self) -> Float[Array, " unit"]:
        return self.manager.start()

    def advise(self, memory: Float[Array, " unit"], noted, turn, *, key) -> Advice:
        del key
        after, said = self.manager(memory, noted)
        memory = jnp.where(turn, after, memory)
        at_once = noted @ self.reflex
        aims = jnp.where(turn, self.aim(said[None])[0] + at_once[1:], 0.0)
        told = jnp.concatenate([noted, memory])[None]
        pace = self.pace(jnp.tanh(self.worker(told)))[0] + at_once[:1]
        return memory, jnp.concatenate([pace, aims])


class Drift(Coach):
    """The same change at every step: with none a static training, with a negative one of the step size annealing."""

    by: Float[Array, " lever"]

    def start(self) -> None:
        return None

    def advise(self, memory, noted, turn, *, key) -> Advice:
        del noted, turn, key
        return memory, self.by


class Wanderer(Coach):
    """A random walk of all levers, with steps of this standard deviation."""

    scale: Float[Array, ""]

    def start(self) -> None:
        return None

    def advise(self, memory, noted, turn, *, key) -> Advice:
        del noted, turn
        return memory, self.scale * jax.random.normal(key, (len(LEVERS),))


def resting(coach: Any) -> Any:
    """The same `ManagerCoach` with all heads at zero: it changes nothing, whatever it sees."""

    def heads(each):
        return [each.aim.weight, each.aim.bias, each.pace.weight, each.pace.bias, each.reflex]

    return eqx.tree_at(heads, coach, [jnp.zeros_like(leaf) for leaf in heads(coach)])
