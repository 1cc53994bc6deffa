"""The loop on families of functions."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Descend, Tasks
from metatower.evaluation.conclusion import Functions, FunctionTask
from metatower.recipes.on_functions import OnFunctions
from metatower.recipes.optimised_maml import Group, OptimisedMAML


@dataclass(frozen=True)
class OptimisedMAMLFunctions(OnFunctions, OptimisedMAML):
    """A meta-meta-learner improves MAML on families of functions.

    A distribution is a kind of function (sinusoid, triangle or square wave) with an amplitude, a frequency, an offset,
    a shift and a noise of its own; its tasks differ in phase. Storey 2 trains MAML's initial weights, its inner rate
    per layer and step and its outer rate per leaf and meta-step, by what they do to fresh runs of ten meta-steps.
    Judged on fresh distributions, and on kinds of function that no training run has seen (sawtooth and bumps).
    """

    name: ClassVar[str] = "optimised-maml-functions"

    steps: int = 1000
    pooled_steps: int = 20_000
    pooled_extra: int = 85_000
    searched: int = 425
    searched_on: int = 40
    inner_rate: float = 0.01
    # pooled MAML comes to adapt either by biases or by the last weights alone, as starts and rounding have it, and the
    # rates of the others fall to nothing; from biases storey 2 gets much further
    bias_rate: float | None = 0.2
    outer_rate: float = 0.02
    outer_clip: float = 10.0
    outer_decay: float = 0.0
    rate_rate: float = 3e-2
    weight_rate: float = 4e-3
    run_clip: float = 0.1
    learn: tuple[Group, ...] = ("weights", "inner-rates", "outer-rates")
    relative: bool = True

    def sample_of(self, maml: Descend, tasks: Tasks) -> Functions:
        wide = dataclasses.replace(cast(Any, tasks), queries=200)
        shown = []
        for key in jax.random.split(jax.random.key(self.seed), 3):
            task = wide.sample(key)
            order = jnp.argsort(task.query.x[:, 0])
            x, truth = task.query.x[order], task.query.y[order]
            adapted = maml.result(maml.adapt(task.support, key=key)).net(x)
            shown.append(
                FunctionTask(
                    np.asarray(x[:, 0]),
                    np.asarray(truth[:, 0]),
                    np.asarray(task.support.x[:, 0]),
                    np.asarray(task.support.y[:, 0]),
                    {"optimised MAML, adapted": np.asarray(adapted[:, 0])},
                )
            )
        return Functions(f"Three tasks of a held-out distribution, and what {self.shots} points tell.", tuple(shown))
