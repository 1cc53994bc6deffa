"""Which structure of a network suits which kind of function, by measurement, and which a meta-GAN generates."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metatower.core.keys import fork
from metatower.evaluation.episodes import episode_keys
from metatower.evaluation.generated import structures
from metatower.evaluation.predictions import predictions
from metatower.evaluation.statistics import paired
from metatower.learners.meta_gan import MetaGAN
from metatower.nets.super_net import OPS
from metatower.recipes.maml_baselines import CHUNK
from metatower.tasks.functions import OfKind
from metatower.tasks.pooled import Pooled
from metatower.training.progress import Progress

GRID_SEED = 404
"""Added to the seed for the validation distributions on which structures are compared."""
Losses = dict[tuple[str, ...], dict[str, np.ndarray]]
"""Of learners with a fixed structure, by the operations of its layers and the kind of function, `[distribution]`."""


def of_fixed_structures(recipe: Any, folder: Path, show: Progress) -> Losses:
    """Losses of MAML with a fixed structure, trained on one kind: which structure suits which kind of function.

    Returns:
        By structure and kind, on validation distributions of that kind, `[distribution]`.
    """
    known: Any = recipe.data()
    layers = len(recipe.hidden)
    each = itertools.product(OPS, repeat=layers) if recipe.grid == "each layer" else ((op,) * layers for op in OPS)
    found: Losses = {}
    for ops in each:
        found[ops] = {}
        for number, kind in enumerate(known.kinds):
            trainer = recipe.maml_of(recipe.of_ops(ops), max(1, recipe.grid_steps))
            tasks = OfKind(known, jnp.int32(number))
            where = folder / "baselines" / f"grid-{'-'.join(ops)}-{kind}"
            state = recipe.trained(trainer, Pooled(tasks), recipe.grid_steps, where, show)
            learner = dataclasses.replace(trainer, steps=0)
            learner = eqx.tree_at(lambda x: x.objective, learner, trainer.result(state))
            family = OfKind(recipe.family("validation"), jnp.int32(number))
            said = predictions(
                learner, family, recipe.after, episodes=recipe.tuned_on, seed=recipe.seed_for(GRID_SEED),
                tasks=recipe.final_judged, chunk=CHUNK, show=show, title=f"{called(ops)} for {kind}",
            )  # fmt: skip
            found[ops][kind] = said.losses()[recipe.inner_steps]
    return found


def best_of(grid: Losses) -> tuple[str, ...]:
    """The structure of the least mean loss over all kinds."""
    return min(grid, key=lambda ops: np.mean([losses.mean() for losses in grid[ops].values()]))


def called(ops: tuple[str, ...]) -> str:
    """The name of a structure: of its operation where there is but one, else of all, from below."""
    return ops[0] if len(set(ops)) == 1 else ", ".join(ops)


def right_for(kind: str, grid: Losses) -> list[tuple[str, ...]]:
    """The structures that are right for a kind of function, best first.

    The one of the least mean loss, and those that 95 % intervals of the paired difference do not tell from it.
    """
    best = min(grid, key=lambda ops: grid[ops][kind].mean())
    found = [ops for ops in grid if ops == best or paired(grid[ops][kind], grid[best][kind]).lo <= 0]
    return sorted(found, key=lambda ops: grid[ops][kind].mean())


def about_structures(recipe: Any, ours: MetaGAN, grid: Losses) -> list[str]:
    """Which structure is right for a kind, by measurement, and which is generated."""
    family, count = recipe.family("train"), recipe.episodes
    ops, used = structures(ours, family, episodes=count, seed=recipe.seed)
    keys = episode_keys(recipe.seed, 0, count)
    kinds = np.asarray(jax.vmap(lambda key: family.sample(fork(key, 3)[0]).support.kind)(keys))
    names, notes, right, best = list(OPS), [], [], []
    for number, kind in enumerate(family.kinds):
        wanted, here = right_for(kind, grid), ops[kinds == number]
        generated = [tuple(names[op] for op in row) for row in here]
        right += [row in wanted for row in generated]
        best += [row == wanted[0] for row in generated]
        layers = "; ".join(
            f"layer {i + 1} "
            + ", ".join(f"{op} {np.mean(column == j):.0%}" for j, op in enumerate(names) if (column == j).any())
            for i, column in enumerate(here.T)
        )
        shown = wanted + [each for each in grid if len(set(each)) == 1 and each not in wanted]
        table = "; ".join(f"{called(each)} {grid[each][kind].mean():.3f}" for each in shown)
        notes.append(
            f"Right for {kind}, of {len(grid)} fixed structures: {' or '.join(called(each) for each in wanted)} (from "
            f"below; the best, and what is not to be told from it). MAML with each, trained on this kind for "
            f"{recipe.grid_steps} steps, has a loss of {table} on {recipe.tuned_on} validation distributions after "
            f"{recipe.inner_steps} steps. Generated for {len(here)} fresh distributions: {layers}."
        )
    notes.append(
        f"A right structure is generated on {np.mean(right):.0%} of {count} fresh distributions of known kinds, where "
        f"one that is drawn from all is right on {chance(grid, family.kinds):.0%}; the best of all on "
        f"{np.mean(best):.0%}, which would be {1 / len(grid):.0%}. "
        f"{used.mean():.0%} of the super-net's multiplications are used."
    )
    return notes


def chance(grid: Losses, kinds: tuple[str, ...]) -> float:
    """How often a structure that is drawn from all would be right."""
    return float(np.mean([len(right_for(kind, grid)) / len(grid) for kind in kinds]))
