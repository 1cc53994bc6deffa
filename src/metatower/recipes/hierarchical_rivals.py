"""What a policy that guides meta-training sets out from, and what it has to beat: schedules, rules of thumb, bandits.

Each is the best of some on validation distributions. Recipes give them what is to be guided (`guided`), and how well a
candidate does (`_best`).
"""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from metatower.core import Descend
from metatower.learners import Guided
from metatower.nets.controller import EXPLORE, FOCUS, GAIN, ManagerWorker, decided, set_out
from metatower.nets.schedulers import Exp3, Schedule
from metatower.recipes.maml_baselines import SEARCH_SEED
from metatower.training.files import make_folder, read_json, write_json
from metatower.training.progress import Progress

CHOICES, DEFAULT_CHOICE = (1, 3, 5), 1
"""Numbers of inner steps, and which of them is the default."""
LOWEST, HIGHEST = (-1.5, -3.0, -9.0), (2.0, 2.0, -1.0)
"""Between which the random search draws the logs of the factors of inner and outer rate, and of the proximal weight."""
STILL = (0.0, 0.0, 0.0)
"""What a static schedule adds to the log rates."""
DRIFT = 3.0
"""By how much the logs of inner and outer rate move at most over a run, where schedules may move them."""
FoundSchedule = tuple[list[float], int, list[float]]
"""The logs, inner steps and drift of a schedule."""
BANDIT_SEED = 404
BANDIT_RATES, BANDIT_MIXED = (0.3, 1.0, 3.0), 0.1
STATIC_FILE, THUMB_FILE = "static.json", "thumb.json"
WEIGHT = "logits per unit of gain"


def static(inner: int, drift: Sequence[float] = STILL) -> Schedule:
    """A schedule of these inner steps whose log rates move by `drift` at every meta-step: by nothing if static."""
    return Schedule(jnp.asarray(inner, jnp.int32), jnp.asarray(drift))


def scheduled(recipe: Any, maml: Descend, logs: Any, inner: int, drift: Any) -> Guided:
    """Storey 1 by a schedule that was found."""
    return recipe.guided(static(inner, drift), maml, logs)


def best_schedule(
    recipe: Any, maml: Descend, count: int, folder: Path, show: Progress, drift: float = 0.0
) -> FoundSchedule:
    """The best of so many schedules on validation distributions.

    The first that is tried is what was given. The rates move by up to `drift` over a run; by nothing if static.
    """
    path = folder / "baselines" / STATIC_FILE
    kept = read_json(path) if path.exists() else {}
    which = f"{count} drifting {drift:g}" if drift else str(count)
    if which not in kept:
        rng = np.random.default_rng(recipe.seed)
        draws = [((0.0, 0.0, -9.0), DEFAULT_CHOICE, STILL)]
        for _ in range(count - 1):
            logs, inner = tuple(rng.uniform(LOWEST, HIGHEST).tolist()), int(rng.integers(len(CHOICES)))
            moved = (*(rng.uniform(-drift, drift, 2) / recipe.meta_steps).tolist(), 0.0) if drift else STILL
            draws.append((logs, inner, moved))
        candidates = {each: scheduled(recipe, maml, *each) for each in draws}
        found = recipe._best(candidates, recipe.searched_on, SEARCH_SEED, show, "schedules of rates")
        kept[which] = [list(found[0]), found[1], list(found[2])]
        make_folder(path.parent)
        write_json(path, kept)
    logs, inner, moved = kept[which]
    return logs, inner, moved


def best_thumb(
    recipe: Any, policy: ManagerWorker, maml: Descend, schedule: FoundSchedule, folder: Path, show: Progress
) -> ManagerWorker:
    """The policy set out as a schedule and the best rule of thumb on validation: all sources in turn, or by gain."""
    logs, inner, drift = schedule
    candidates = {0.0: set_out(policy, inner, drift)}
    for weight in filter(None, recipe.thumbs):
        given = jnp.zeros_like(policy.given).at[GAIN].set(weight / policy.unit)
        candidates[weight] = set_out(policy, inner, drift, FOCUS, given)
    path = folder / "baselines" / THUMB_FILE
    if not path.exists():
        runs = {weight: recipe.guided(decided(each), maml, logs) for weight, each in candidates.items()}
        best = recipe._best(runs, recipe.searched_on, SEARCH_SEED, show, "rules of thumb") if len(runs) > 1 else 0.0
        make_folder(path.parent)
        write_json(path, {WEIGHT: best})
    return candidates[read_json(path, (WEIGHT,))[WEIGHT]]


def best_bandit(recipe: Any, schedules: list[Guided], show: Progress) -> Guided:
    """The bandit with the rates of one of these schedules, and what else is best on validation."""

    def bandit(rate: float, progress: float, routine: int, at: Guided) -> Guided:
        controller = Exp3(
            rate=jnp.asarray(rate, jnp.float32),
            mixed=jnp.asarray(BANDIT_MIXED, jnp.float32),
            progress=jnp.asarray(progress, jnp.float32),
            inner=at.controller.inner,
            routine=jnp.asarray(routine, jnp.int32),
            drift=at.controller.drift,
            bins=recipe.bins,
        )
        return dataclasses.replace(at, controller=controller, every=1)

    options = itertools.product(BANDIT_RATES, (0.0, 1.0), (FOCUS, EXPLORE), range(len(schedules)))
    candidates = {each: bandit(*each[:3], schedules[each[3]]) for each in options}
    return candidates[recipe._best(candidates, recipe.tuned_on, BANDIT_SEED, show, "bandits")]


def in_words(guided: Guided) -> str:
    """The rates and inner steps of a schedule, and how a bandit is paid and takes tasks."""
    by = guided.controller
    inner, outer, proximal = np.exp(np.asarray(guided.logs, float))
    first, second, _ = np.exp(np.asarray(by.drift, float) * (guided.steps - 1))
    words = f"{CHOICES[int(by.inner)]} inner steps, factors of inner and outer rate {inner:.3g} and {outer:.3g}"
    if not (first == second == 1):
        words += f" which move to {first:.3g} and {second:.3g} times that"
    words += f", proximal weight {proximal:.2g}"
    if isinstance(by, Exp3):
        paid = "progress" if by.progress else "gain"
        words += f", sources {'drawn' if by.routine == FOCUS else 'weighted'}, paid by {paid} at rate {by.rate:g}"
    return words
