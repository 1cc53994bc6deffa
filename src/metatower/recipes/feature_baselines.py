"""Classifiers by features as baselines at storey 2: Prototypical Networks and a ridge head, on mixed distributions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from metatower.core import Constant, Descend, Learner, lift, put
from metatower.learners.prototypical import PrototypicalNetwork
from metatower.learners.ridge import R2D2
from metatower.recipes.maml_baselines import (
    POOLED_CLIP,
    POOLED_DECAYS,
    POOLED_RATES,
    POOLED_WEIGHT_RATE,
    TUNING_SEED,
    MAMLBaselines,
    chosen_once,
)
from metatower.rules import adam, anneal, clip, momentum
from metatower.tasks.pooled import Pooled
from metatower.training.loop import train
from metatower.training.progress import Progress

HEADS: dict[str, Callable[[Any], Learner]] = {
    "Prototypical Network, pooled": PrototypicalNetwork,
    "ridge head, pooled": R2D2,
}
"""What is made of a network that gives features, by the name that results have."""


PROTOTYPES, _ = HEADS


def trainer(recipe: MAMLBaselines, name: str, net: Any, steps: int, steady: int = 0) -> Descend:
    """Trains this head's features on the mixture of all training distributions: no gradient step on a task or a run.

    The step size falls to zero at the last of so many `steps`, once the first `steady` are made.
    """
    rule = anneal(clip(adam(POOLED_WEIGHT_RATE), POOLED_CLIP), begin=steady, end=max(1, steps, steady + 1))
    return lift(HEADS[name](net), rule, batch=recipe.pooled_batch, steps=0)


def pooled(
    recipe: MAMLBaselines,
    name: str,
    net: Any,
    steps: int,
    folder: Path,
    show: Progress,
    *,
    steady: int = 0,
    of: int | None = None,
) -> Descend:
    """The head after so many steps, for tasks of labels (`Examples.ways` says how many): a run of no meta-steps.

    Args:
        net: gives the features, with fresh weights.
        folder: of the run; what was trained in it stays so.
        steady: steps before the step size falls.
        of: steps of the whole training, of which these are the first; the same if None.

    Raises:
        NonFinite: a support set lacks examples of a class that it says it has.
    """
    top = trainer(recipe, name, net, of or steps, steady)
    state = train(
        top,
        Pooled(recipe.data()),
        steps=steps,
        seed=recipe.seed,
        folder=folder / "baselines" / _file(name),
        config={"steps": of or steps, "steady": steady},
        title=name,
        show=show,
    )
    return put(top, state.leaves)


def then_k(
    recipe: MAMLBaselines, name: str, trained: Descend, folder: Path, show: Progress
) -> tuple[Descend, tuple[float, float]]:
    """The trained head, whose features take K meta-steps at the rate and momentum best on validation distributions.

    Returns:
        The run, and the two.
    """
    learner: Any = trained.objective
    batch, k = recipe.meta_batch, recipe.meta_steps

    def at(*numbers: float) -> Descend:
        # arrays, as one compiled program then serves all
        rule = momentum(*(Constant(jnp.asarray(number)) for number in numbers))
        return lift(learner.learner, clip(rule, recipe.outer_clip), batch=batch, steps=k, judged=recipe.judged)

    candidates = {(rate, decay): at(rate, decay) for rate in POOLED_RATES for decay in POOLED_DECAYS}
    best = chosen_once(
        folder / "baselines" / f"{_file(name)}-rates.json",
        lambda: recipe._best(candidates, recipe.tuned_on, TUNING_SEED, show, f"rates of {name}"),
    )
    return candidates[best], best


def _file(name: str) -> str:
    return name.split(",")[0].replace(" ", "-").lower()
