"""Whether rates that storey 2 learns on a small network help a larger one.

    python -m benchmarks.larger_nets [--hidden 160 160] [--seeds 0 1 2] [--out benchmarks/results/larger-nets.json]

Storey 2 learns inner and outer rates, per leaf and step, over a small network on the function zoo. They are put on the
larger network, whose weights are those of pooled MAML of its own, and judged on fresh distributions and held-out kinds
beside rates that were tuned on the larger network, tuned on the small one, and learned on the larger one.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.groups import RATES
from benchmarks.machine import machine
from metatower.core import Learner, pick, put
from metatower.evaluation.comparison import shuffled
from metatower.evaluation.statistics import hierarchical
from metatower.recipes.optimised_maml import rates_of
from metatower.recipes.optimised_maml_functions import OptimisedMAMLFunctions
from metatower.training.files import make_folder, write_json
from metatower.training.loop import train
from metatower.training.progress import Progress, progress
from metatower.training.runtime import setup

TUNED = "rate and momentum tuned on the larger network"
ABROAD = "rate and momentum tuned on the small network"
START = "rates of pooled MAML, as storey 2 starts"
SMALL = "rates that storey 2 learned on the small network"
WITH_WEIGHTS = "rates that storey 2 learned on the small network with its weights"
SHUFFLED = "the same, shuffled"
LARGE = "rates that storey 2 learned on the larger network"


def learned(recipe: OptimisedMAMLFunctions, folder: Path, show: Progress, title: str) -> tuple[Any, Any]:
    """Storey 1 as storey 2 starts, and as it has trained it."""
    tower = recipe.begin(recipe.learner(), folder, show)
    state = train(tower, recipe.data(), steps=recipe.steps, seed=recipe.seed, title=title, show=show)
    return recipe.artefact(tower, tower.start(key=jax.random.key(0))), recipe.artefact(tower, state)


def tuned(recipe: OptimisedMAMLFunctions, folder: Path, show: Progress) -> tuple[Learner, tuple[float, float]]:
    """Pooled MAML at the outer rate and momentum that are best on validation distributions, and those."""
    return recipe._tuned_pooled(recipe._pooled(recipe.pooled_steps, folder, show), show, folder)


def contestants(seed: int, given: argparse.Namespace, folder: Path, show: Progress) -> dict[str, Any]:
    """Runs of the larger network by whose rates they have."""
    common = {"seed": seed, "steps": given.steps, "pooled_steps": given.pooled_steps, "pooled_extra": 1}
    small = OptimisedMAMLFunctions(**common, learn=RATES)
    large = dataclasses.replace(small, hidden=tuple(given.hidden))
    places = [make_folder(folder / name) for name in ("small", "large")]
    started, alone = learned(small, places[0], show, "rates of the small network")
    both = learned(
        dataclasses.replace(small, learn=OptimisedMAMLFunctions.learn), places[0], show, "rates and weights"
    )[1]
    start, own = learned(large, places[1], show, "rates of the larger network")
    best, _ = tuned(large, places[1], show)
    _, (rate, decay) = tuned(small, places[0], show)
    maml = large._pooled(large.pooled_steps, places[1], show)
    nonsense = shuffled(started, alone, jax.random.key(seed), rates_of)

    def moved(trainer: Any) -> Any:
        return put(start, pick(trainer, rates_of), rates_of)

    return {
        TUNED: best,
        ABROAD: large._with_rates(large.trainer(), maml, rate, decay=decay),
        START: start,
        SMALL: moved(alone),
        WITH_WEIGHTS: moved(both),
        SHUFFLED: moved(nonsense),
        LARGE: own,
    }


def main() -> None:
    """Every row for every seed; the table is written after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[160, 160], help="units of the larger network")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--pooled-steps", type=int, default=20_000)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    setup()
    show, losses, began = progress("auto"), {}, time.monotonic()
    for number, seed in enumerate(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            found = contestants(seed, given, Path(folder), show)
        recipe = OptimisedMAMLFunctions(seed=seed, hidden=tuple(given.hidden))
        for label, family in recipe.judged_on().items():
            for name, learner in found.items():
                scores = recipe._judge(learner, family, given.episodes, recipe.seed, show, name)["loss"]
                losses.setdefault((label, name), []).append(scores)
        conclude(losses, given.seeds[: number + 1], given, time.monotonic() - began)


def conclude(losses: dict, seeds: list[int], given: argparse.Namespace, seconds: float) -> None:
    """The table over the seeds so far."""
    rows = []
    for (label, name), each in losses.items():
        values, usual = np.array(each), np.array(losses[label, TUNED])
        found, ratio = hierarchical(values), hierarchical(np.log(values) - np.log(usual))
        percent = [100 * (np.exp(x) - 1) for x in (ratio.mean, ratio.lo, ratio.hi)]
        rows.append({
            "name": name, "split": label.strip(" ()"), "metric": "loss@K", "mean": found.mean,
            "ci95": [found.lo, found.hi], "n": found.n, "unit": "distribution", "seeds": seeds, "percent": percent[0],
            "percent_ci95": percent[1:], "against": TUNED,
        })  # fmt: skip
        print(f"{label} {name:66} {found.mean:.3f}  {percent[0]:+.1f} % [{percent[1]:+.1f}, {percent[2]:+.1f}]")
    if given.out:
        sizes = {name: getattr(given, name) for name in ("hidden", "steps", "pooled_steps", "episodes", "seeds")}
        command = "python -m benchmarks.larger_nets " + " ".join(
            f"--{name.replace('_', '-')} {' '.join(map(str, each)) if isinstance(each, list) else each}"
            for name, each in sizes.items()
        )
        about = {"command": command, "machine": machine(), "seconds": round(seconds), "sizes": sizes}
        write_json(given.out, {**about, "results": rows})


if __name__ == "__main__":
    main()
