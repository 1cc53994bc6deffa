"""The families of meta-meta-learning that `metatower compare meta-meta` sets side by side, and what all share."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from metatower.core import Objective, Tasks
from metatower.recipes.hierarchical import HierarchicalRL
from metatower.recipes.meta_gan import MetaGANFunctions
from metatower.recipes.on_functions import Criterion, OnFunctions
from metatower.recipes.optimised_maml_functions import OptimisedMAMLFunctions
from metatower.recipes.own_family import OwnFamily
from metatower.recipes.recurrent_memory import RecurrentMemory


@dataclass(frozen=True)
class Family:
    """One way to learn how to learn, as it is compared."""

    recipe: type[OnFunctions]
    """A subclass of `OnFunctions` and `MAMLBaselines`, whose `contestants` name it first and then its ablations."""
    words: str
    """What it is, to a newcomer."""
    slower: float = 1.0
    """Time per floating-point operation, against pooled MAML."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the recipe, where they are not its own."""
    from_pooled: bool = True
    """Whether it sets out from pooled MAML, whose training then counts as its own."""
    any_network: bool = True
    """Whether it takes the network of a family's file (`objective`), where that gives one."""


@dataclass(frozen=True)
class _GuidedOnFunctions(HierarchicalRL):
    """Hierarchical reinforcement learning where no source is corrupted: all that it can guide are steps and rates."""

    def family(self, split: str) -> Tasks:
        return OnFunctions.family(self, split)

    def judged_on(self) -> dict[str, Tasks]:
        return OnFunctions.judged_on(self)


FAMILIES: dict[str, Family] = {
    "meta-optimisation": Family(
        OptimisedMAMLFunctions,
        "MAML itself is trained: the weights it starts from, its inner rate for each layer and step, and its outer "
        "rate for each layer and meta-step are moved along the gradient of what whole runs of MAML end with.",
        slower=1.5,
    ),
    "recurrent": Family(
        RecurrentMemory,
        "No gradient step on the distribution at all: a recurrent memory meets one task after the other, and what it "
        "remembers moves the initial weights and steers a learned update rule.",
        slower=1.5,
    ),
    "hierarchical": Family(
        _GuidedOnFunctions,
        "A policy guides MAML: every other meta-step a manager chooses which tasks, how many inner steps and which "
        "routine, and at every meta-step a worker changes the rates. Trained by evolution strategies; where it is not "
        "better than the best static schedule on validation distributions, that schedule ships.",
        slower=3.0,
        options={"static_searched": 16, "gate": 96},
    ),
    "meta-gan": Family(
        MetaGANFunctions,
        "A generator reads the tasks of a distribution and emits a network, its operations, units, initial weights and "
        "rates, that adapts in a few steps; a discriminator compares what it does with what networks do that were "
        "trained for long.",
        slower=2.0,
        from_pooled=False,
        any_network=False,
    ),
}
"""By the name that results have. To add one, add its recipe here."""

COMMON: dict[str, Any] = {
    "shots": 5,
    "queries": 10,
    "hidden": (40, 40),
    "meta_steps": 10,
    "meta_batch": 8,
    "inner_steps": 3,
    "inner_rate": 0.02,
    "outer_rate": 0.02,
    "outer_clip": 10.0,
    "outer_decay": 0.0,
}
"""What is the same for all: tasks, network, the length of a run, the baselines' start."""


def recipe_for(kind: type[OnFunctions], own: OwnFamily | None, wide: int = 24, **options: Any) -> Any:
    """The recipe with these options (those that it has) and the common ones, on one's own family if there is one.

    Args:
        wide: distributions that are worked on at the same time: other numbers are other programs to compile.
    """
    extra = {"own": own} if own is not None else {}
    bases = (_OnOwn, kind) if own is not None else (kind,)
    kind = type(kind.__name__, bases, {**extra, "chunk": wide, "__doc__": kind.__doc__, "__module__": kind.__module__})
    known = {each.name for each in dataclasses.fields(kind)}
    given = {**COMMON, **options}
    return kind(**{name: each for name, each in given.items() if name in known})


class _OnOwn:
    """What a recipe on functions takes from the file of a family."""

    own: ClassVar[OwnFamily]

    def family(self, split: str) -> Tasks:
        return self.own.splits[split]

    def objective(self, seed: int) -> Objective:
        return self.own.objective(seed, COMMON["hidden"])

    @property
    def criterion(self) -> Criterion:
        return self.own.criterion

    def numbers(self) -> tuple[int, int]:
        return self.own.inputs, self.own.outputs

    def judged_on(self) -> dict[str, Tasks]:
        return {" (fresh distributions)": self.own.splits["train"], " (held-out kinds)": self.own.splits["test"]}
