"""The loop on families of functions."""

from dataclasses import dataclass
from typing import ClassVar

import jax

from metatower.core import Objective, Tasks
from metatower.nets import MLP, Supervised, squared_error
from metatower.recipes.optimised_maml import OptimisedMAML
from metatower.tasks.functions import FunctionFamily


@dataclass(frozen=True)
class OptimisedMAMLFunctions(OptimisedMAML):
    """A meta-meta-learner improves MAML on families of functions.

    A distribution is a kind of function (sinusoid, triangle or square wave) with an amplitude, a frequency, an offset,
    a shift and a noise of its own; its tasks differ in phase. Storey 2 trains MAML's initial weights, its inner rate
    per layer and step and its outer rate per leaf, by what they do to fresh runs of ten meta-steps. Judged on fresh
    distributions, and on kinds of function that no training run has seen (sawtooth and bumps).
    """

    name: ClassVar[str] = "optimised-maml-functions"

    steps: int = 1000
    pooled_steps: int = 20_000
    pooled_extra: int = 84_000
    inner_rate: float = 0.02
    outer_rate: float = 0.03
    outer_clip: float = 10.0
    rate_rate: float = 3e-2
    weight_rate: float = 1e-3
    shots: int = 5
    """Examples to adapt to, per task."""
    queries: int = 10
    """Examples to be judged on, per task."""
    frequency: tuple[float, float] = (0.5, 1.2)
    """Least and largest angular frequency of a distribution."""
    hidden: tuple[int, ...] = (40, 40)
    """Units of the hidden layers."""

    @property
    def metric(self) -> str:
        return "loss"

    def objective(self, seed: int) -> Objective:
        return Supervised(MLP((1, *self.hidden, 1), key=jax.random.key(seed)), squared_error)

    def family(self, split: str) -> Tasks:
        kinds = ("sawtooth", "bumps") if split == "test" else ("sinusoid", "triangle", "square")
        return FunctionFamily(kinds, self.shots, self.queries, frequency=self.frequency)

    def judged_on(self) -> dict[str, Tasks]:
        return {" (fresh distributions)": self.family("train"), " (held-out kinds)": self.held_out()}
