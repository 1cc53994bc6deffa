"""What helps in the MAML-based loop: trainings that differ in what storey 2 learns, and how fast, on validation.

    python -m benchmarks.groups [--steps 1000] [--seeds 0] [--out benchmarks/results/groups.json]

Each starts from the same pooled MAML and is trained for as many storey-2 steps; all are judged on the same validation
distributions of the function zoo, after K meta-steps. Nothing here has seen a held-out kind.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.machine import machine
from metatower.evaluation.episodes import evaluate, judged_on
from metatower.evaluation.statistics import hierarchical
from metatower.recipes.optimised_maml_functions import OptimisedMAMLFunctions
from metatower.training.files import write_json
from metatower.training.loop import train
from metatower.training.progress import Progress, progress
from metatower.training.runtime import setup

START, DEFAULT = "nothing (the start)", "weights and all rates (the default)"
RATES = ("inner-rates", "outer-rates")
SLOW = {"weight_rate": 3e-4, "rate_rate": 1e-2}
"""Top rates that are 13 times and 3 times smaller than the recipe's."""
SETS: dict[str, dict[str, Any] | None] = {
    START: None,
    "weights": {"learn": ("weights",)},
    "inner rates": {"learn": ("inner-rates",)},
    "outer rates": {"learn": ("outer-rates",)},
    "inner and outer rates": {"learn": RATES},
    DEFAULT: {},
    "default and momentum": {"learn": ("weights", *RATES, "momentum")},
    "default and step-loss weights": {"learn": ("weights", *RATES, "step-weights")},
    "default and preconditioner": {"learn": ("weights", *RATES, "preconditioner")},
    "default and task-conditioned rates": {"learn": ("weights", *RATES, "alfa")},
    "default and learned loss": {"learn": ("weights", *RATES, "learned-loss")},
    "default, runs not clipped one by one": {"run_clip": 0.0},
    "default, smaller top rates": SLOW,
    "default, smaller top rates and no clip": {**SLOW, "run_clip": 0.0},
}
"""Options of the recipe by the name of the row; None for what storey 2 sets out from."""
VALIDATION_SEED = 303
"""Added to the seed: other distributions than those on which baselines are tuned."""


def one(name: str, options: dict[str, Any], folder: Path, episodes: int, show: Progress) -> tuple[np.ndarray, float]:
    """The loss on each validation distribution, and the seconds per storey-2 step."""
    recipe = OptimisedMAMLFunctions(**options, **(SETS[name] or {}))
    tower = recipe.begin(recipe.learner(), folder, show)
    state, took = tower.start(key=jax.random.key(0)), 0.0
    if SETS[name] is not None:
        train(tower, recipe.data(), steps=1, seed=recipe.seed)  # compiled here, so that the time is of steps
        began = time.monotonic()
        state = train(tower, recipe.data(), steps=recipe.steps, seed=recipe.seed, title=name, show=show)
        took = (time.monotonic() - began) / recipe.steps
    learner = judged_on(recipe.artefact(tower, state), recipe.final_judged)
    seed = recipe.seed_for(VALIDATION_SEED)
    found = evaluate(learner, recipe.family("validation"), episodes=episodes, seed=seed, chunk=50, show=show)
    return found["loss"], took


def main() -> None:
    """Every row for every seed; the table is written after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--pooled-steps", type=int, default=20_000)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    setup()
    show, losses, seconds = progress("auto"), {name: [] for name in SETS}, {}
    for seed in given.seeds:
        options = {"seed": seed, "steps": given.steps, "pooled_steps": given.pooled_steps, "pooled_extra": 1}
        with tempfile.TemporaryDirectory() as folder:
            for name in given.only:
                values, seconds[name] = one(name, options, Path(folder), given.episodes, show)
                losses[name].append(values)
                print(f"seed {seed}  {name}: {values.mean():.4f}  {1000 * seconds[name]:.0f} ms/step", flush=True)
                conclude(losses, seconds, given)


def conclude(losses: dict[str, list[np.ndarray]], seconds: dict[str, float], given: argparse.Namespace) -> None:
    """The table so far, over the seeds that all sets have."""
    done = {name: each for name, each in losses.items() if each}
    count = min(map(len, done.values()))
    usual = np.array(done.get(DEFAULT, done[START])[:count])
    rows = []
    for name, each in done.items():
        values = np.array(each[:count])
        found, ratio = hierarchical(values), hierarchical(np.log(values) - np.log(usual))
        percent = [100 * (np.exp(x) - 1) for x in (ratio.mean, ratio.lo, ratio.hi)]
        rows.append({
            "name": name, "metric": "loss@K", "mean": found.mean, "ci95": [found.lo, found.hi], "n": found.n,
            "unit": "distribution", "seeds": given.seeds[:count], "percent": percent[0], "percent_ci95": percent[1:],
            "against": DEFAULT if done.get(DEFAULT) else START, "ms_per_step": 1000 * seconds[name],
        })  # fmt: skip
        print(f"{name:40} {found.mean:.3f}  {percent[0]:+.1f} % [{percent[1]:+.1f}, {percent[2]:+.1f}]")
    if given.out:
        sizes = {"steps": given.steps, "pooled_steps": given.pooled_steps, "seeds": given.seeds}
        command = (
            f"python -m benchmarks.groups --steps {given.steps} --pooled-steps {given.pooled_steps} "
            f"--episodes {given.episodes} --seeds {' '.join(map(str, given.seeds))}"
        )
        if given.only != list(SETS):
            command += " --only " + " ".join(f'"{name}"' for name in given.only)
        write_json(given.out, {"command": command, "machine": machine(), "sizes": sizes, "results": rows})


if __name__ == "__main__":
    main()
