"""Tasks per second against devices and processes: `python -m benchmarks.scaling [--rounds 3]`.

The meta-step of `benchmarks.maml_step` on a growing number of processor cores: as devices of one process, and as
processes of one core each that exchange their means over sockets (Gloo). Every process is bound to its cores, so that
one core is one core; the ways of sharing run in turn, for several rounds; medians of their medians count. Writes
`benchmarks/results/scaling.json` and `scaling.svg`.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import machine

RESULTS = Path(__file__).parent / "results"
CONFIGURATIONS = ("mlp 25 5 10 10", "conv-stride 32 1 1 15", "conv-pool 8 1 1 15")
TARGET = 1.7
"""Two processes of one core each against one such process, on conv-stride."""


def one_process(cores: list[int], configuration: str, place: tuple[str, int, int] | None) -> subprocess.Popen:
    """A process on these cores, which takes its part in a group if it has a place there."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--worker", configuration]
    if place is not None:
        command += ["--place", *map(str, place)]
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # inherited by the child
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    finally:
        os.sched_setaffinity(0, mine)


def work(configuration: str, place: list[str] | None) -> None:
    """In a process of its own: the median seconds of a meta-step, printed by the first of a group."""
    from metatower.training import processes, runtime

    runtime.setup()
    if place is not None:
        processes.join(place[0], int(place[1]), int(place[2]))
    import numpy as np

    from benchmarks.maml_step import compiled, data, seconds, tower

    net, meta, steps, shot, query = configuration.split()
    learner, tasks = tower(net, int(meta), int(steps)), data(net, int(meta), int(shot), int(query))
    step, state, _ = compiled(learner, tasks, shared=True)
    # as many steps in every process of a group: each step waits for all
    found = seconds(step, state, steps=None if place is None else 2000 if net == "mlp" else 12)
    if processes.is_first():
        print(json.dumps(float(np.median(found))))


def measure(configuration: str, devices: int, processes: int) -> float:
    """Seconds of a meta-step on `processes` processes with so many cores each."""
    cores = sorted(os.sched_getaffinity(0))
    parts = [cores[i * devices : (i + 1) * devices] for i in range(processes)]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    places = [None] if processes == 1 else [(address, processes, i) for i in range(processes)]
    running = [one_process(part, configuration, place) for part, place in zip(parts, places, strict=True)]
    said = [each.communicate()[0] for each in running]
    if any(each.returncode for each in running):
        raise RuntimeError(f"{configuration} on {processes} processes of {devices}: a process failed.")
    return json.loads(said[0].splitlines()[-1])


def plot(rows: list[dict], path: Path) -> None:
    """Tasks per second against cores, beside a line in proportion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, configuration in zip(figure.subplots(1, len(CONFIGURATIONS)), CONFIGURATIONS, strict=True):
        mine = [row for row in rows if row["configuration"] == configuration]
        for label, key in (("devices of one process", "devices"), ("processes of one core", "processes")):
            line = [row for row in mine if row["devices"] * row["processes"] == row[key]]
            axes.plot([row[key] for row in line], [row["tasks_per_second"] for row in line], marker="o", label=label)
        cores = sorted({row["devices"] * row["processes"] for row in mine})
        alone = next(row["tasks_per_second"] for row in mine if row["devices"] * row["processes"] == 1)
        axes.plot(cores, [alone * number for number in cores], color="grey", ls=":", label="in proportion")
        axes.set(title=configuration, xlabel="cores", ylabel="tasks per second", ylim=(0, None), xticks=cores)
    axes.legend(fontsize=7)
    figure.savefig(path)


def main(arguments: list[str]) -> None:
    """Every way of sharing in turn, or one worker of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--place", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.worker:
        return work(given.worker, given.place)
    numbers = [2**i for i in range(len(os.sched_getaffinity(0)).bit_length())]
    ways = [(number, 1) for number in numbers] + [(1, number) for number in numbers[1:]]
    rows = []
    for configuration in CONFIGURATIONS:
        rounds = [[measure(configuration, *way) for way in ways] for _ in range(given.rounds)]
        alone = statistics.median(each[0] for each in rounds)
        for i, (devices, processes) in enumerate(ways):
            found = statistics.median(each[i] for each in rounds)
            row = {"configuration": configuration, "devices": devices, "processes": processes, "seconds": found}
            row |= {"tasks_per_second": int(configuration.split()[1]) / found, "faster_than_one": alone / found}
            row["rounds"] = [each[i] for each in rounds]
            rows.append(row)
            print(
                f"{configuration}: {processes} x {devices} core(s): {found:.4g} s, {row['tasks_per_second']:.4g} "
                f"tasks/s, {row['faster_than_one']:.2f} x one core",
                flush=True,
            )
    two = [r for r in rows if r["configuration"].startswith("conv-stride") and r["processes"] == 2]
    for row in two:
        verdict = "met" if row["faster_than_one"] >= TARGET else "MISSED"
        print(f"{verdict}: two processes at least {TARGET} x one: {row['faster_than_one']:.2f}")
    RESULTS.mkdir(exist_ok=True)
    about = {"command": f"python -m benchmarks.scaling --rounds {given.rounds}", **machine()}
    (RESULTS / "scaling.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    plot(rows, RESULTS / "scaling.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
