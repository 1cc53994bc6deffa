"""Hierarchical reinforcement learning on pictures of letters."""

from dataclasses import dataclass
from typing import ClassVar

from metatower.core import Tasks
from metatower.recipes.hierarchical import PROBE, Hierarchical
from metatower.recipes.on_glyphs import OnGlyphs
from metatower.tasks.binned import CorruptedFamily


@dataclass(frozen=True)
class HierarchicalGlyphs(OnGlyphs, Hierarchical):
    """A manager and a worker guide MAML on distributions of pictures of letters some of whose sources mislabel.

    The tasks of a distribution come from eight sources. In the support sets of some of them, which ones is not told,
    the labels are shuffled. Every few meta-steps a recurrent manager chooses sources, inner steps and a routine; at
    every meta-step a worker changes the rates. Both are trained on what whole runs gain on clean probe tasks, as in
    `hierarchical-rl`. Judged on the cross entropy after whole runs on distributions of scripts that no training run has
    seen.
    """

    name: ClassVar[str] = "hierarchical-rl-glyphs"
    may_be_zero: ClassVar[tuple[str, ...]] = (*Hierarchical.may_be_zero, "nuisance")

    steps: int = 100
    meta_steps: int = 20
    meta_batch: int = 4
    runs: int = 3
    every: int = 2
    start_searched: int = 60
    outer_rate: float = 0.06
    pooled_steps: int = 15_000
    pooled_extra: int = 15_000
    searched: int = 60
    searched_on: int = 40
    tuned_on: int = 40

    @property
    def metric(self) -> str:
        return "loss"

    def corrupted(self, shares: tuple[float, ...], pool: int, split: str = "train") -> CorruptedFamily:
        """As in `Hierarchical`, of the scripts of this split; there are two pools of letters only, one to judge on."""
        del pool
        return CorruptedFamily(super().family(split), shares, self.bins, labels=True)

    def family(self, split: str) -> Tasks:
        return self.corrupted((self.held_out_share,) if split == "test" else self.shares, PROBE, split)

    def judged_on(self) -> dict[str, Tasks]:
        shares = (0.0, max(self.shares), self.held_out_share)
        return {f" ({share:.0%} of sources mislabelled)": self.corrupted((share,), PROBE, "test") for share in shares}
