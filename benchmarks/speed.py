"""One MAML meta-step against every PyTorch peer: `python -m benchmarks.speed [--rounds 3]`.

`--peers` is a folder with `setup_peers.sh` and `torch_peers.py` (`../shared/bench` beside the repository if not
given), `--python` the interpreter that the former made; where there is none, it is made first (in `~/.cache/metatower-
peers`). For each configuration metatower and all peers run in turn, each in a process of its own, and this for several
rounds; medians over rounds of the medians of each process count. That the meta-gradients agree is checked first, in
float64.

Beside the ratios stand the shares of two limits of this machine, measured in the same run: `of matmul` is the
step's floating-point operations over those of large matrix products in the same time on all cores; `of memory` the
bytes that the operations of the compiled step read and write (`benchmarks/traffic.py`), over those that a stream
through memory moves. What stays in the caches makes the second exceed 1. Writes `benchmarks/results/speed.json` and
`speed.md`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import bandwidth, machine, matmul_rate

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "bench"
PYTHON = str(Path.home() / ".cache" / "metatower-peers" / "bin" / "python")
RESULTS = Path(__file__).parent / "results"
PEERS = ("loop", "learn2learn", "higher", "torchopt", "vmap")
TARGETS = {
    "mlp 25 1 10 10": (9, 60),
    "mlp 25 5 10 10": (9, 60),
    "conv-stride 32 1 1 15": (3, 3),
    "conv-stride 32 5 1 15": (4, 4),
    "conv-pool 8 1 1 15": (2, 2),
    "conv-pool 8 5 1 15": (2, 2),
}
"""NET META STEPS SHOT QUERY: the ratios aimed at, to the best peer and to learn2learn."""


def ours(configuration: str) -> dict:
    """Seconds of one of our steps, in a process of its own."""
    return _json([sys.executable, "-m", "benchmarks.maml_step", *configuration.split()])


def theirs(peer: str, configuration: str, given) -> dict:
    """Seconds of a peer's step; `error` instead where it cannot do it."""
    command = [given.python, str(given.peers / "torch_peers.py"), peer, *configuration.split()]
    try:
        return _json(command, PYTHONPATH=str(Path(given.python).parents[1] / "stubs"))
    except subprocess.CalledProcessError as error:
        return {"peer": peer, "error": (error.stderr.strip().splitlines() or ["no message"])[-1]}


def agreement(configuration: str, python: str) -> float:
    """How far our meta-gradient is from PyTorch's, in float64."""
    return _json([sys.executable, "-m", "benchmarks.agreement", python, *configuration.split()])["gradient_error"]


def _json(command: list[str], **environment: str) -> dict:
    done = subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(configuration: str, given) -> dict:
    """All sides in turn, for some rounds."""
    rounds, failed = {"metatower": []}, {}
    for _ in range(given.rounds):
        rounds["metatower"].append(ours(configuration))
        for peer in PEERS:
            if peer not in failed:
                found = theirs(peer, configuration, given)
                if "error" in found:
                    failed[peer] = found["error"]
                else:
                    rounds.setdefault(peer, []).append(found)
    seconds = {name: statistics.median(each["median"] for each in found) for name, found in rounds.items()}
    mine = seconds["metatower"]
    ratios = {name: value / mine for name, value in seconds.items() if name != "metatower"}
    best = min(ratios, key=lambda name: ratios[name])
    target, of_learn2learn = TARGETS[configuration]
    step = rounds["metatower"][0]
    row = {
        "configuration": configuration,
        "gradient_error": agreement(configuration, given.python),
        "seconds": seconds,
        "ratios": ratios,
        "best_peer": best,
        "ratio": ratios[best],
        "target": target,
        "target_learn2learn": of_learn2learn,
        "rounds": {name: [each["median"] for each in found] for name, found in rounds.items()},
        "of_matmul": step["flops"] / mine / matmul_rate(),
        "of_memory": step["bytes"] / mine / bandwidth(),
        "compile_s": step["compile_s"],
        "failed": failed,
    }
    print(line(row), flush=True)
    return row


HEAD = (
    "| configuration | metatower, s | best peer, s | ratio (target) | learn2learn (target) | gradients differ by "
    "| of matmul | of memory |\n|---|---|---|---|---|---|---|---|"
)


def line(row: dict) -> str:
    """A row of the table."""
    best, learn2learn = row["best_peer"], row["ratios"].get("learn2learn")
    against = "failed" if learn2learn is None else f"{learn2learn:.1f} ({row['target_learn2learn']})"
    return (
        f"| {row['configuration']} | {row['seconds']['metatower']:.3g} | {row['seconds'][best]:.3g} ({best}) "
        f"| {row['ratio']:.2f} ({row['target']}) | {against} | {row['gradient_error']:.0e} "
        f"| {row['of_matmul']:.2f} | {row['of_memory']:.2f} |"
    )


def main(arguments: list[str]) -> None:
    """Every configuration; prints the table as it grows, and writes it in the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, default=FOLDER, help="folder with torch_peers.py and setup_peers.sh")
    parser.add_argument("--python", default=PYTHON, help="interpreter with the peers; made if it is not there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="configurations that begin with this; nothing is written")
    given = parser.parse_args(arguments)
    if not (given.peers / "torch_peers.py").is_file():
        parser.error(f"no torch_peers.py in {given.peers}; give its folder with --peers")
    if not Path(given.python).is_file():
        subprocess.run(["bash", str(given.peers / "setup_peers.sh"), str(Path(given.python).parents[1])], check=True)
    rows = []
    print(HEAD, flush=True)
    for configuration in TARGETS:
        if configuration.startswith(given.only or ""):
            rows.append(measure(configuration, given))
    if given.only:
        return
    listed = "import importlib.metadata as m; print(*(f'{d.name.lower()}={d.version}' for d in m.distributions()))"
    found = subprocess.run([given.python, "-c", listed], check=True, capture_output=True, text=True).stdout.split()
    names = ("torch", "learn2learn", "higher", "torchopt")
    versions = {name: version for name, version in (each.split("=", 1) for each in found) if name in names}
    about = {"command": f"python -m benchmarks.speed --rounds {given.rounds}", **machine(), "peers": versions}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "speed.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    told = ", ".join(f"{name} {value}" for name, value in {**machine(), **versions}.items())
    table = "\n".join([HEAD, *map(line, rows)])
    (RESULTS / "speed.md").write_text(f"{table}\n\nMedians of {given.rounds} rounds in turn; {told}.\n")


if __name__ == "__main__":
    main(sys.argv[1:])
