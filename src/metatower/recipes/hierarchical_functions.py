"""Hierarchical reinforcement learning on families of functions."""

from dataclasses import dataclass
from typing import ClassVar

from metatower.core import Tasks
from metatower.recipes.hierarchical import JUDGED, PROBE, Hierarchical
from metatower.recipes.on_functions import OnFunctions
from metatower.tasks.binned import CorruptedFamily
from metatower.tasks.functions import FunctionFamily


@dataclass(frozen=True)
class HierarchicalRL(OnFunctions, Hierarchical):
    """A manager and a worker guide MAML on distributions of functions some of whose sources are corrupted.

    The tasks of a distribution come from eight sources. Of some sources, which ones is not told, the support sets
    belong to other functions. Every few meta-steps a recurrent manager chooses sources, inner steps and a routine;
    at every meta-step a worker changes the rates. Both are trained on what whole runs gain on clean probe tasks: the
    manager by REINFORCE with a leave-one-out baseline over runs on the same distribution, the worker by the exact
    gradient through the run. They start as the best schedule of rates that a random search finds, with tasks drawn from
    where adaptation helps if that is better still (`thumbs`), and ship only if they are better than this start on fresh
    distributions. Judged on tasks of a third pool.
    """

    name: ClassVar[str] = "hierarchical-rl"
    may_be_zero: ClassVar[tuple[str, ...]] = (*Hierarchical.may_be_zero, "noise")

    steps: int = 200
    noise: float = 0.3
    """Largest noise of the support targets in training; held out are values up to 0.2 higher."""
    inner_rate: float = 0.02
    outer_rate: float = 0.01
    outer_clip: float = 10.0
    outer_decay: float = 0.5
    pooled_steps: int = 20_000
    pooled_extra: int = 20_000
    searched: int = 100
    searched_on: int = 40
    tuned_on: int = 40

    def corrupted(
        self, shares: tuple[float, ...], pool: int, kinds: tuple[str, ...] = (), noise: float = 0.0
    ) -> CorruptedFamily:
        """As in `Hierarchical`, of other kinds if given; `noise` is added."""
        family = FunctionFamily(
            kinds or self.kinds,
            self.shots,
            self.queries,
            frequency=self.frequency,
            noise=(noise, self.noise + noise),
            pools=3,
            judges=pool,
        )
        return CorruptedFamily(family, shares, self.bins)

    def family(self, split: str) -> Tasks:
        if split == "test":
            return self.corrupted((self.held_out_share,), JUDGED, noise=0.2)
        return self.corrupted(self.shares, PROBE)

    def judged_on(self) -> dict[str, Tasks]:
        highest = max(self.shares)
        return {
            " (no source corrupted)": self.corrupted((0.0,), JUDGED),
            f" ({highest:.0%} of sources corrupted)": self.corrupted((highest,), JUDGED),
            f" ({self.held_out_share:.0%} of sources corrupted, more noise)": self.held_out(),
            f" (held-out kinds, {highest:.0%} corrupted)": self.corrupted((highest,), JUDGED, self.held_out_kinds),
        }
