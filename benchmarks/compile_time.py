"""Seconds to compile a tower's step, cold and warm: `python -m benchmarks.compile_time`.

Storeys 1, 2 and 3 of the MLP tower (1-40-40-1, functions), each in processes of its own: first with an empty
persistent cache (cold), then again with what that one left there (warm). Tracing, and compiling or loading, count;
starting Python, importing the library and the first step itself do not. Writes `benchmarks/results/compile_time.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import machine

RESULTS = Path(__file__).parent / "results"
TARGETS = {1: 3.0, 2: 8.0, 3: 25.0}
WARM = 1.5


def first_step(storey: int, mixed: bool) -> dict:
    """In this process: how long tracing and compiling one step take, and running it."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from metatower import Descend, Task, Tasks, adam, lift, rates_for, sgd
    from metatower.core import Unrolled
    from metatower.gradients import MixedMode
    from metatower.nets import MLP, Supervised, squared_error
    from metatower.tasks.functions import FunctionFamily, Sinusoids
    from metatower.training.runtime import setup

    class Families(Tasks):
        """Distributions of families: twice the same one, its ranges stretched."""

        family: Tasks

        def sample(self, key):
            stretched = [jax.tree.map(lambda x, f=f: x * f, self.family) for f in 0.5 + jax.random.uniform(key, (2,))]
            return Task(*stretched)

    setup()
    net = Supervised(MLP((1, 40, 40, 1), key=jax.random.key(0)), squared_error)
    inner = MixedMode(remat=False) if mixed else Unrolled()
    learner = Descend(net, sgd(rates_for(net, 0.01)), steps=5, gradient=inner)
    for floor in range(1, storey + 1):
        rule = adam(1e-3) if floor == storey else sgd(jnp.array(0.01))
        gradient = inner if floor < storey else Unrolled(remat=False if mixed else None)
        learner = lift(learner, rule, batch=25 if floor == 1 else 2, steps=3, gradient=gradient)
    tasks = {1: Sinusoids, 2: FunctionFamily, 3: lambda: Families(FunctionFamily())}[storey]()
    state = learner.start(key=jax.random.key(0))
    dynamic, static = eqx.partition((learner, state, tasks), eqx.is_array)

    def step(dynamic, key):
        learner, state, tasks = eqx.combine(dynamic, static)
        return eqx.filter(learner.update(state, tasks, key=key), eqx.is_array)

    key = jax.random.key(1)
    began = time.perf_counter()
    lowered = jax.jit(step).lower(dynamic, key)
    traced = time.perf_counter()
    program = lowered.compile()
    compiled = time.perf_counter()
    jax.block_until_ready(program(dynamic, key))
    seconds = {"trace": traced - began, "compile": compiled - traced, "total": compiled - began}
    return {**seconds, "first_step": time.perf_counter() - compiled}


def main(arguments: list[str]) -> None:
    """Every storey, cold and warm, in processes of its own; or one of them in this one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--storey", type=int, choices=TARGETS, help="measure in this process, for the parent")
    parser.add_argument("--mixed", action="store_true", help="mixed mode below the top storey")
    given = parser.parse_args(arguments)
    if given.storey:
        print(json.dumps(first_step(given.storey, given.mixed)))
        return
    rows = []
    for storey, target in TARGETS.items():
        for mixed in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                for state, limit in (("cold", target), ("warm", WARM)):
                    command = [sys.executable, "-m", "benchmarks.compile_time", "--storey", str(storey)]
                    command += ["--mixed"] * mixed
                    environment = {**os.environ, "METATOWER_CACHE": folder}
                    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
                    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                    seconds = json.loads(done.stdout.splitlines()[-1])
                    gradient = "mixed" if mixed else "unrolled"
                    row = {"storey": storey, "gradient": gradient, "cache": state, "target": limit, **seconds}
                    rows.append(row)
                    parts = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
                    verdict = "met   " if seconds["total"] <= limit else "MISSED"
                    print(verdict, f"storey {storey} {gradient:8} {state} (at most {limit} s): {parts}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    about = {"command": "python -m benchmarks.compile_time", **machine()}
    (RESULTS / "compile_time.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
