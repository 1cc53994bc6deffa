"""Steps of the world per second of the whole RL² training loop, beside plain PyTorch on the same sizes and cores.

`python -m benchmarks.rl2_speed --torch PYTHON`, with the Python of an environment that has PyTorch. Both play the
bandits, remember and learn by PPO (`benchmarks/torch_rl2.py` is the other side); rounds alternate, the fastest counts.
Beside them is how much arithmetic that takes, and what the machine reaches in one large product of matrices.
"""

import argparse
import subprocess
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks.machine import machine
from metatower import adam
from metatower.envs import BernoulliBandit, Worlds
from metatower.learners import PPO, rl2
from metatower.rules import clip
from metatower.training import runtime
from metatower.training.files import write_json
from metatower.training.loop import train

RESULTS = Path(__file__).parent / "results" / "rl2_speed.json"
SIZES = ((1024, 10, 5, 64), (512, 100, 5, 64), (512, 100, 5, 256))
"""Trials, pulls, arms, units."""
EPOCHS, MINIBATCHES = 4, 4


def ours(trials: int, pulls: int, arms: int, units: int, steps: int) -> float:
    """Steps per second of our whole training loop."""
    environment = BernoulliBandit(arms)
    agent = rl2(environment, key=jax.random.key(0), size=units)
    trainer = PPO(agent, clip(adam(3e-3), 0.5), pulls, trials=trials, epochs=EPOCHS, minibatches=MINIBATCHES, trace=0.7)
    train(trainer, Worlds(environment), steps=steps, seed=0)  # compiles
    began = time.perf_counter()
    train(trainer, Worlds(environment), steps=steps, seed=0)
    return steps * trials * pulls / (time.perf_counter() - began)


def theirs(python: str, trials: int, pulls: int, arms: int, units: int, steps: int) -> float:
    """The same of `torch_rl2.py`."""
    script = str(Path(__file__).parent / "torch_rl2.py")
    sizes = map(str, (trials, pulls, arms, units, EPOCHS, MINIBATCHES, steps))
    return float(subprocess.run([python, script, *sizes], check=True, capture_output=True, text=True).stdout.split()[0])


def arithmetic(arms: int, units: int) -> int:
    """Operations on numbers per step of the world, in the products of the GRU alone: played once, learned from in every
    epoch, where the derivative takes twice what the value does.
    """
    return 2 * (1 + 3 * EPOCHS) * 3 * units * (units + arms + 2)


def peak(size: int = 2048) -> float:
    """Operations per second in a product of two large matrices, on all cores."""
    product = jax.jit(lambda a: a @ a)
    a = jax.block_until_ready(product(jnp.ones((size, size))))
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        jax.block_until_ready(product(a))
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def main() -> None:
    """Both sides in turn, for every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", required=True, help="a Python that has PyTorch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    runtime.setup()
    rows = []
    for size in SIZES:
        found = [
            (ours(*size, arguments.steps), theirs(arguments.torch, *size, arguments.steps))
            for _ in range(arguments.rounds)
        ]
        mine, other = (max(each) for each in zip(*found, strict=True))
        names = dict(zip(("trials", "pulls", "arms", "units"), size, strict=True))
        each = arithmetic(*size[2:]) / 1e9
        rows.append(
            {
                **names,
                "metatower": round(mine),
                "pytorch": round(other),
                "ratio": round(mine / other, 2),
                "gflops": round(mine * each, 1),
                "gflops of 10 times pytorch": round(10 * other * each, 1),
            }
        )
        print(rows[-1], flush=True)
    version = subprocess.check_output(
        [arguments.torch, "-c", "import torch; print(torch.__version__)"], text=True
    ).strip()
    about = {"command": f"python -m benchmarks.rl2_speed --torch PYTHON --steps {arguments.steps}", **machine()}
    write_json(RESULTS, {**about, "torch": version, "gflops of a large product": round(peak() / 1e9, 1), "rows": rows})


if __name__ == "__main__":
    main()
