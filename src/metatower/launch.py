"""`--processes N`: the same command started N times on this machine, and watched until all have ended."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

GRACE = 5.0
"""Seconds that the others get to end by themselves once one has ended badly."""
PARENT = "METATOWER_LAUNCHER"
"""Where in the environment a process finds who has launched it, and ends it."""
LOST = 75
"""Exit code of a process that lost the others: not the one to blame."""


def launch(arguments: Sequence[str], processes: int, again: str) -> int:
    """Runs `metatower` with these arguments in several processes that share the work; gives the exit code.

    Each gets its own part of the processor cores. Only the first speaks. If one ends badly all are ended, and one
    sentence says which and why.

    Args:
        arguments: of the command line, `--processes` among them.
        processes: how many.
        again: the command that continues the run.
    """
    address = f"127.0.0.1:{_free_port()}"
    with tempfile.TemporaryDirectory(prefix="metatower-") as folder:
        said = [Path(folder) / str(i) for i in range(processes)]
        children: list[subprocess.Popen] = []
        # Ctrl-C reaches the children from the terminal; what is sent to this process alone is passed on
        handlers = {
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: _send(children, number)),
        }
        try:
            for i, cores in enumerate(_dealt(processes)):
                place = ["--coordinator", address, "--process", str(i)]
                command = [sys.executable, "-m", "metatower.cli", *arguments, *place]
                with open(said[i], "wb") as file:
                    how: dict = {} if i == 0 else {"stdout": subprocess.DEVNULL, "stderr": file}
                    # what a killed process leaves behind is then in our folder
                    how["env"] = {**os.environ, "TMPDIR": folder, PARENT: str(os.getpid())}
                    children.append(_start(command, cores, how))
            codes = _watch(children)
        finally:
            _send(children, signal.SIGKILL)
            for child in children:
                child.wait()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return _conclude(codes, said, again)


def _start(command: list[str], cores: set[int], how: dict) -> subprocess.Popen:
    if not hasattr(os, "sched_setaffinity"):
        return subprocess.Popen(command, **how)
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # inherited by the child
    try:
        return subprocess.Popen(command, **how)
    finally:
        os.sched_setaffinity(0, mine)


def _dealt(processes: int) -> list[set[int]]:
    """Disjoint parts of the cores that this process may use; where there are too few, some have the same."""
    if not hasattr(os, "sched_getaffinity"):
        return [set()] * processes
    cores = sorted(os.sched_getaffinity(0))
    if processes > len(cores):
        return [{cores[i % len(cores)]} for i in range(processes)]
    ends = [len(cores) * i // processes for i in range(processes + 1)]
    return [set(cores[a:b]) for a, b in itertools.pairwise(ends)]


def _watch(children: list[subprocess.Popen]) -> list[int | None]:
    """Waits until all have ended, or one badly and the others have had their time; their exit codes."""
    until = None
    while True:
        codes = [child.poll() for child in children]
        if all(code is not None for code in codes) or (until is not None and time.monotonic() > until):
            return codes
        if until is None and any(codes):
            until = time.monotonic() + GRACE
        time.sleep(0.05)


def _conclude(codes: list[int | None], said: list[Path], again: str) -> int:
    bad = [i for i, code in enumerate(codes) if code not in (0, None, LOST)]
    silent = [i for i, code in enumerate(codes) if code is None]  # when the time of the others was over
    first = codes[0] or 0
    if not (bad or silent) or (first > 0 and first != LOST):  # it has said why itself; JAX ends the others without it
        return first
    # signals, which are negative, before mere complaints
    blamed = min(bad, key=lambda i: (codes[i] or 0, i)) if bad else silent[0]
    code = codes[blamed] or 0
    lines = said[blamed].read_text(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    if not bad:
        how = "did not answer any more"
    elif code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
    else:
        how = f"ended with code {code}: {last}"
    print(
        f"metatower: process {blamed} of {len(codes)} {how}; the others were ended too. What was saved last is kept: "
        f"continue with `{again}`, with any number of processes.",
        file=sys.stderr,
    )
    return 1


def _send(children: list[subprocess.Popen], number: int) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(number)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
