"""How strong pooled MAML can be made: `python -m benchmarks.pooled_rivals`.

The baseline that storey 2 has to beat on functions is trained with one step size for its weights and on the plain
squared error. Here it is trained with others, and on the logarithm of the loss, as storey 2 is; each has its own outer
rate, momentum and schedule, and the best of all is chosen on validation distributions. Storey 2, as its recipe trains
it, is judged beside them. Writes `benchmarks/results/pooled-rivals.json`.
"""

import argparse
import dataclasses
import itertools
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from metatower.evaluation.statistics import interval
from metatower.gradients import Relative
from metatower.recipes.maml_baselines import TUNING_SEED
from metatower.recipes.optimised_maml_functions import OptimisedMAMLFunctions
from metatower.training.files import write_json
from metatower.training.loop import train
from metatower.training.progress import progress
from metatower.training.runtime import setup

OUT = Path(__file__).parent / "results" / "pooled-rivals.json"
RATES, LEAST = (1e-3, 3e-3), 1e-2
OURS, USUAL = "optimised MAML", "pooled MAML, weights at 0.001"


def rival(rate: float, relative: bool) -> type[OptimisedMAMLFunctions]:
    """The recipe with another pooled MAML."""

    class Rival(OptimisedMAMLFunctions):
        pooled_weight_rate = rate

        def _pooled_trainer(self):
            trainer = super()._pooled_trainer()
            return dataclasses.replace(trainer, gradient=Relative(least=LEAST)) if relative else trainer

    return Rival


def main() -> None:
    """Trains the rivals and storey 2, and judges all on the same distributions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "pooled-rivals", help="where trainings are kept")
    given = parser.parse_args()
    setup()
    show, runs, tuned = progress("plain"), {}, {}
    for rate, relative in itertools.product(RATES, (False, True)):
        name = f"pooled MAML, weights at {rate:g}" + ", log-loss" * relative
        recipe, place = rival(rate, relative)(seed=given.seed), given.runs / f"{rate:g}{'-log' * relative}-{given.seed}"
        recipe._start(place, show)  # as storey 2 sets out from it, in the case of the usual one
        pooled = recipe._pooled(recipe.pooled_steps + recipe.pooled_extra, place, show)
        rates = recipe._tuned_pooled(pooled, show, place)[1]
        runs[name] = recipe._scheduled_pooled(pooled, rates, show, place)[0]
        tuned[name] = recipe._score(runs[name], recipe.tuned_on, TUNING_SEED, show, "on validation")
    recipe, place = OptimisedMAMLFunctions(seed=given.seed), given.runs / f"{RATES[0]:g}-{given.seed}"
    tower = recipe.begin(recipe.learner(), place, show)
    state = train(tower, recipe.data(), steps=recipe.steps, seed=recipe.seed, title=OURS, show=show)
    runs[OURS] = recipe.artefact(tower, state)
    losses = {
        (name, label): np.asarray(recipe._judge(run, family, recipe.episodes, recipe.seed, show, name)["loss"])
        for label, family in recipe.judged_on().items()
        for name, run in runs.items()
    }
    rows = []
    for (name, label), each in losses.items():
        mean, ratio = interval(each), interval(np.log(each) - np.log(losses[USUAL, label]))
        ours = interval(np.log(losses[OURS, label]) - np.log(each))
        percent, gained = ([100 * (np.exp(x) - 1) for x in (r.mean, r.lo, r.hi)] for r in (ratio, ours))
        where = label.strip(" ()")
        rows.append({
            "name": name, "split": where, "loss@K": mean.mean, "ci95": [mean.lo, mean.hi], "n": mean.n,
            "unit": "distribution", "percent_against_usual": percent, "percent_of_optimised_maml": gained,
            "validation": tuned.get(name), "chosen": name == min(tuned, key=tuned.get),
        })  # fmt: skip
        print(f"{where}  {name:45} {mean.mean:.3f}  {percent[0]:+.1f} %, ours {gained[0]:+.1f} %", flush=True)
    command = f"python -m benchmarks.pooled_rivals --seed {given.seed}"
    write_json(OUT, {"command": command, **machine(), "seed": given.seed, "rows": rows})


if __name__ == "__main__":
    main()
