"""An objective on a few examples at a time."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from metatower.core import Objective, Scored


class Minibatch(Objective):
    """The objective on `size` of its examples, drawn afresh for every step; a finished run is judged on all of them.

    Reptile's inner loop (Nichol, Achiam & Schulman 2018, section 6.1): several steps, each on other examples of a task.

    Args:
        objective: of examples in arrays with a common leading axis, such as `Supervised`.
        size: examples per step; all of them if there are no more.
    """

    objective: Any
    size: int = eqx.field(static=True)

    def __check_init__(self):
        if not (isinstance(self.size, int) and self.size >= 1):
            raise ValueError(f"Minibatch: expected a size of at least 1, got {self.size!r}.")

    def loss(self, data: Any, *, key: PRNGKeyArray) -> Scored:
        count = len(data.y)
        if self.size < count:
            drawn, weight = jax.random.permutation(key, count), None
            if data.weight is not None:
                drawn = drawn[jnp.argsort(data.weight[drawn] == 0)]  # padding only where there is nothing else
                weight = data.weight[drawn[: self.size]]
            drawn = drawn[: self.size]
            data = type(data)(data.x[drawn], data.y[drawn], weight, data.ways)
        return self.objective.loss(data, key=key)

    def as_judge(self) -> Objective:
        return self.objective

    def seen(self, data: Any) -> PyTree:
        return self.objective.seen(data)

    def after(self, seen: PyTree) -> "Minibatch":
        return Minibatch(self.objective.after(seen), self.size)
