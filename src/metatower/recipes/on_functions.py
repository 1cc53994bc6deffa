"""What the recipes at storey 2 that work on families of functions share."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax

from metatower.core import Objective, Scored, Tasks
from metatower.core.errors import UserError
from metatower.nets import MLP, Supervised, squared_error
from metatower.recipes.base import Recipe
from metatower.tasks.functions import FunctionFamily

Criterion = Callable[..., Scored]


@dataclass(frozen=True)
class OnFunctions(Recipe):
    """A small network on families of functions."""

    shots: int = 5
    """Examples to adapt to, per task."""
    queries: int = 10
    """Examples to be judged on, per task."""
    frequency: tuple[float, float] = (0.5, 1.2)
    """Least and largest angular frequency of a distribution."""
    kinds: tuple[str, ...] = ("sinusoid", "triangle", "square")
    """Kinds of function to learn from; see `metatower.tasks.functions.WAVES`."""
    held_out_kinds: tuple[str, ...] = ("sawtooth", "bumps")
    """Kinds of function to be judged on, none of them learned from."""
    hidden: tuple[int, ...] = (40, 40)
    """Units of the hidden layers."""

    def check(self) -> None:
        super().check()
        if both := sorted(set(self.kinds) & set(self.held_out_kinds)):
            raise UserError(
                f"{self.name}: expected --held-out-kinds that are not learned from, got {both[0]!r} in both."
            )

    @property
    def metric(self) -> str:
        return "loss"

    @property
    def criterion(self) -> Criterion:
        """What predictions are judged by."""
        return squared_error

    def objective(self, seed: int) -> Objective:
        return Supervised(MLP((1, *self.hidden, 1), key=jax.random.key(seed)), self.criterion)

    def family(self, split: str) -> Tasks:
        kinds = self.held_out_kinds if split == "test" else self.kinds
        return FunctionFamily(kinds, self.shots, self.queries, frequency=self.frequency)

    def numbers(self) -> tuple[int, int]:
        """How many numbers an input and a target have."""
        task = jax.eval_shape(lambda key: self.data().sample(key).support.sample(key).support, jax.random.key(0))
        return math.prod(task.x.shape[1:]), math.prod(task.y.shape[1:])

    def outputs(self) -> int:
        """How many numbers a prediction has."""
        return self.numbers()[1]

    def data(self) -> Tasks:
        return self.family("train")

    def held_out(self) -> Tasks:
        return self.family("test")

    def judged_on(self) -> dict[str, Tasks]:
        """Held-out families by what is appended to the names of their rows."""
        return {" (fresh distributions)": self.family("train"), " (held-out kinds)": self.held_out()}
