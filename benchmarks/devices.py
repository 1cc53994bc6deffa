"""When it is faster to share a step between cores: `python -m benchmarks.devices` times each recipe's step both ways.

Prints, from the shortest step to the longest, its forward floating-point operations (what `core/sharding.py` decides
by) and seconds per step on one core and on all, compilation left out; medians of three in turn.
"""

import time

import jax
import numpy as np

from metatower.core.plan import forward_flops
from metatower.recipes import RECIPES
from metatower.training import runtime, train

SECONDS = 3.0
"""Wall time that a timed run aims at."""


def seconds_per_step(tower, data, devices: int, steps: int) -> float:
    """Wall time of a run on so many devices, by its steps."""
    began = time.perf_counter()
    jax.block_until_ready(train(tower, data, steps=steps, seed=0, devices=devices))
    return (time.perf_counter() - began) / steps


def main() -> None:
    """One line for each recipe."""
    cores = jax.device_count()
    towers = [(name, recipe().learner(), recipe().data()) for name, recipe in RECIPES.items()]
    for name, tower, data in sorted(towers, key=lambda each: forward_flops(*each[1:])):
        for devices in (1, cores):
            seconds_per_step(tower, data, devices, 10)  # compiles
        steps = max(3, int(SECONDS / seconds_per_step(tower, data, 1, 10)))
        found = [[seconds_per_step(tower, data, devices, steps) for devices in (1, cores)] for _ in range(3)]
        one, all_of_them = np.median(found, axis=0)
        print(
            f"{name}: {forward_flops(tower, data):.2g} FLOPs; {one:.3g} s on 1 core, {all_of_them:.3g} s on {cores}: "
            f"{one / all_of_them:.2f} times as fast",
            flush=True,
        )


if __name__ == "__main__":
    runtime.setup()
    main()
