"""The families of meta-meta-learning that `metatower compare meta-meta` sets side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metatower.recipes.grounds import Ground, recipe_on
from metatower.recipes.hierarchical_functions import HierarchicalRL
from metatower.recipes.maml_baselines import MAMLBaselines
from metatower.recipes.meta_gan import MetaGANFunctions
from metatower.recipes.optimised_maml_functions import OptimisedMAMLFunctions
from metatower.recipes.optimised_prototypical import OptimisedPrototypical
from metatower.recipes.recurrent_memory import RecurrentMemory


@dataclass(frozen=True)
class Family:
    """One way to learn how to learn, as it is compared."""

    recipe: type[MAMLBaselines]
    """Abstract but for what a ground has; its `contestants` name it first and then its ablations."""
    words: str
    """What it is, to a newcomer."""
    slower: float = 1.0
    """Time per floating-point operation, against pooled MAML."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the recipe, where they are not its own."""
    from_pooled: bool = True
    """Whether it sets out from pooled MAML, whose training then counts as its own."""
    by_features: bool = False
    """Whether it classifies by features, and sets out from a pooled Prototypical Network instead."""
    any_network: bool = True
    """Whether it takes the network of a family's file (`objective`), where that gives one."""


FAMILIES: dict[str, Family] = {
    "meta-optimisation": Family(
        OptimisedMAMLFunctions,
        "MAML itself is trained: the weights it starts from, its inner rate for each layer and step, and its outer "
        "rate for each layer and meta-step are moved along the gradient of what whole runs of MAML end with.",
        slower=1.5,
    ),
    "meta-optimised-prototypes": Family(
        OptimisedPrototypical,
        "How a Prototypical Network is trained on a distribution is itself trained: the features that it starts from, "
        "and an outer rate and momentum for each layer and meta-step. Nothing moves on a task.",
        slower=1.5,
        from_pooled=False,
        by_features=True,
    ),
    "recurrent": Family(
        RecurrentMemory,
        "No gradient step on the distribution at all: a recurrent memory meets one task after the other, and what it "
        "remembers moves the initial weights and steers a learned update rule.",
        slower=1.5,
    ),
    "hierarchical": Family(
        HierarchicalRL,
        "A policy guides MAML: every other meta-step a manager chooses how many inner steps and which routine (and "
        "which tasks, where a distribution has several sources), and at every meta-step a worker changes the rates. "
        "The manager is trained by REINFORCE, the worker by the gradient through whole runs; where they are not better "
        "than the best static schedule on validation distributions, that schedule ships.",
        slower=1.5,
        options={
            **{"start_searched": 16, "start_drift": 0.0, "thumbs": (0.0,)},
            **{"gate": 96, "policy_rate": 0.005, "every": 2},
        },
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


def base_recipe(where: Ground, **options: Any) -> Any:
    """The recipe that trains and tunes what all families have in common: their start, and MAML's baselines."""
    return recipe_on(where, OptimisedMAMLFunctions, **{**where.options.get("meta-optimisation", {}), **options})


def family_recipe(name: str, where: Ground, **options: Any) -> Any:
    """The recipe of a family on a ground; the ground's options go before the family's, and `options` before both."""
    family = FAMILIES[name]
    return recipe_on(where, family.recipe, **{**family.options, **where.options.get(name, {}), **options})
