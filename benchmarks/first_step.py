"""How long the main job takes to its first step: `python -m benchmarks.first_step [--rounds 3]`.

Starts `metatower train` as a user does, in a process of its own: once with an empty cache of compiled programs (cold),
once with the programs of that run (warm). Each is stopped as soon as pooled MAML and storey 2 have made a step. Seconds
from the start of the process, imports and the drawing of the letters included; medians over rounds. Writes
`benchmarks/results/first_step.json`.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import machine
from metatower.training.files import write_json

RESULTS = Path(__file__).parent / "results" / "first_step.json"
FIRST = {"pooled MAML": "first_step_s", "optimised-maml": "first_storey_2_step_s"}
"""How the lines of progress begin that tell of a first step, in the order in which they come."""


def seconds_to_first_steps(folder: Path, cache: Path) -> dict[str, float]:
    """Runs the main job until both have made a step.

    Raises:
        RuntimeError: it ended before.
    """
    command = [sys.executable, "-m", "metatower.cli", "train", "--progress", "plain", "--out", str(folder)]
    began, found = time.perf_counter(), {}
    environment = {**os.environ, "METATOWER_CACHE": str(cache)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as job:
        assert job.stderr is not None
        lines = []
        for text in job.stderr:
            lines.append(text)
            for title, name in FIRST.items():
                if text.startswith(title + "  "):
                    found.setdefault(name, round(time.perf_counter() - began, 2))
            if len(found) == len(FIRST):
                job.send_signal(signal.SIGKILL)
                return found
    raise RuntimeError(f"The main job ended before its first steps:\n{''.join(lines[-5:])}")


def main(arguments: list[str]) -> None:
    """Cold and warm, for some rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    rounds: dict[str, list[dict]] = {"cold": [], "warm": []}
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as place:
            for kind, found in rounds.items():
                found.append(seconds_to_first_steps(Path(place) / kind, Path(place) / "cache"))
                print(kind, found[-1], flush=True)
    medians = {
        kind: {name: statistics.median(each[name] for each in found) for name in FIRST.values()}
        for kind, found in rounds.items()
    }
    command = f"python -m benchmarks.first_step --rounds {given.rounds}"
    write_json(RESULTS, {"command": command, **machine(), **medians, "rounds": rounds})


if __name__ == "__main__":
    main(sys.argv[1:])
