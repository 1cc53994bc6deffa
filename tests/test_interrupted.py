"""Runs of the command line in processes of their own, killed, stopped and continued, or with a full disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SINUSOID = ["maml-sinusoid", "--steps", "60", "--episodes", "20", "--hidden", "8", "--batch", "4", "--shots", "5"]
MAIN_JOB = [
    "optimised-maml", "--steps", "6", "--distributions", "2", "--meta-steps", "2", "--meta-batch", "2", "--judged", "2",
    "--inner-steps", "1", "--pooled-steps", "40", "--pooled-batch", "2", "--pooled-extra", "40", "--tuned-on", "2",
    "--searched", "4", "--searched-on", "2", "--episodes", "3", "--final-judged", "2", "--size", "8", "--hidden", "4",
    "--classes", "ink", "size",
]  # fmt: skip

LIMITED = """
import resource, signal, sys
from metatower.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, resource.RLIM_INFINITY))
sys.exit(main())
"""


def start(*arguments: str, cache: Path, most: int | None = None) -> subprocess.Popen:
    """`metatower` in a process of its own, whose files may have `most` bytes."""
    environment = {**os.environ, "METATOWER_CACHE": str(cache), "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if most is not None:
        environment["METATOWER_NO_CACHE"] = "1"
    program = ["-m", "metatower.cli"] if most is None else ["-c", LIMITED.format(most=most)]
    command = [sys.executable, *program, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen, code: int) -> str:
    """What it said on standard error; it must have ended with this code."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    return err


def until(process: subprocess.Popen, folder: Path, pattern: str) -> bool:
    """Waits for a file like this and for the process to be at work; False if it ended before."""
    began = time.time()
    for _ in range(60_000):
        clock = folder / "elapsed.json"
        if list(folder.glob(pattern)) and clock.exists() and clock.stat().st_mtime > began:
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    raise AssertionError(f"no {pattern} in {folder}")


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """Where all runs of this file keep what they compile."""
    return tmp_path_factory.mktemp("programs")


# many checkpoints, none thinned out by time
OFTEN = ["--checkpoint-every", "0", "--progress", "plain"]


def assert_same(one: Path, other: Path):
    for name in ("model/model.safetensors", "model/config.json", "metrics.jsonl", "conclusion.json", "config.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    for plot in (one / "plots").iterdir():
        assert plot.read_bytes() == (other / "plots" / plot.name).read_bytes(), plot.name
    one, other = (json.loads((folder / "summary.json").read_text()) for folder in (one, other))
    assert {**one, "seconds": 0} == {**other, "seconds": 0}


KILLED, STOPPED = signal.SIGKILL, signal.SIGINT
SINUSOID_AT = {
    "config.json": KILLED,
    "checkpoint-*": STOPPED,
    "checkpoint-?[1-9]": KILLED,
    "model/model.safetensors": KILLED,
    "baselines/*/checkpoint-*": KILLED,
    "conclusion.json": KILLED,
    "plots/*": KILLED,
}
MAIN_JOB_AT = {
    "config.json": KILLED,
    "baselines/pooled/checkpoint-*": STOPPED,
    "baselines/random-search.json": KILLED,
    "baselines/pooled-rates.json": KILLED,
    "baselines/start": KILLED,
    "checkpoint-*": STOPPED,
    "model/model.safetensors": KILLED,
    "conclusion.json": KILLED,
    "plots/*": KILLED,
}


@pytest.mark.parametrize(
    ("job", "moments"), [(SINUSOID, SINUSOID_AT), pytest.param(MAIN_JOB, MAIN_JOB_AT, marks=pytest.mark.slow)]
)
def test_killed_at_every_stage_and_resumed_it_ends_with_the_same_bits(job, moments, programs, tmp_path):
    straight, folder = tmp_path / "straight", tmp_path / "run"
    ended(start("train", *job, "--out", str(straight), *OFTEN, cache=programs), 0)
    process, interrupted = start("train", *job, "--out", str(folder), *OFTEN, cache=programs), 0
    for moment, how in moments.items():
        if until(process, folder, moment):
            process.send_signal(how)
            if how == STOPPED:
                text = ended(process, 130)
                assert f"metatower resume {folder}" in text
                assert "Traceback" not in text
                interrupted += 1
            else:
                interrupted += process.wait() == -KILLED
                process.communicate()
            assert not (folder / "summary.json").exists()
            spent = json.loads((folder / "elapsed.json").read_text())["seconds"] if moment == "plots/*" else 0
            process = start("resume", str(folder), *OFTEN, cache=programs)
    ended(process, 0)
    assert interrupted == len(moments)
    assert_same(folder, straight)
    # the time of all sessions counts, those that were killed too
    assert json.loads((folder / "summary.json").read_text())["seconds"] > spent
    assert not list(folder.rglob("*.tmp-*"))


def test_a_disk_that_fills_up(programs, tmp_path):
    """A limit on the size of files makes the writing of one fail half-way, as a full disk does."""
    pytest.importorskip("resource")
    folder = tmp_path / "run"
    text = ended(start("train", *SINUSOID, "--out", str(folder), *OFTEN, cache=programs, most=20_000), 2)
    assert "Cannot write" in text
    assert "Traceback" not in text
    assert not list(folder.rglob("*.tmp-*"))
    assert not (folder / "summary.json").exists()
