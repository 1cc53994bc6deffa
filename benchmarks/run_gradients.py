"""How long storey 2's gradient of single runs is: `python -m benchmarks.run_gradients RUN [--count 96]`.

RUN is a finished run of `optimised-maml`, for its pooled MAML. From there storey 2 is trained for 0, 30 and 100 steps,
as it was before runs were clipped one by one (8 distributions, 1e-4 for the weights) and as it is now; each time the
exact gradient is taken of so many runs, each on a training distribution of its own. Writes
`benchmarks/results/run-gradients.json`.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import machine
from metatower.core import pick, put
from metatower.core.keys import fork
from metatower.recipes import find
from metatower.training import runtime
from metatower.training.loop import train
from metatower.training.progress import Silent

RESULTS = Path(__file__).parent / "results"
STEPS = (0, 30, 100)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
TRAININGS = {
    "as it was": {"run_clip": 0.0, "distributions": 8, "weight_rate": 1e-4},
    "runs clipped one by one": {},
}


def lengths(tower: Any, data: Any, count: int) -> np.ndarray:
    """Global norms of the gradients of so many runs, by all that storey 2 learns."""
    objective = dataclasses.replace(tower.objective, batch=1)

    @eqx.filter_jit
    def length(objective, data, key):
        def loss(leaves):
            return put(objective, leaves).loss(data, key=key)[0]

        return jnp.sqrt(sum(jnp.sum(g**2) for g in jax.grad(loss)(pick(objective))))

    return np.array([length(objective, data, key) for key in fork(jax.random.key(5), count)])


def main(arguments: list[str] | None = None) -> None:
    """Prints a row as soon as it is there; writes all in the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=96)
    given = parser.parse_args(arguments)
    runtime.setup()
    rows = []
    for name, options in TRAININGS.items():
        recipe = find("optimised-maml")(**options)
        start = recipe.begin(recipe.learner(), given.run, Silent())
        for steps in STEPS:
            state = train(start, recipe.data(), steps=steps, seed=0, show=Silent())
            found = lengths(dataclasses.replace(start, objective=start.result(state)), recipe.data(), given.count)
            shown = dict(zip(map(str, QUANTILES), np.quantile(found, QUANTILES).round(2).tolist(), strict=True))
            rows.append({"training": name, "steps": steps, "runs": given.count, "quantiles": shown})
            print(json.dumps(rows[-1]), flush=True)
    about = {"command": "python -m benchmarks.run_gradients runs/optimised-maml-0", **machine()}
    (RESULTS / "run-gradients.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
