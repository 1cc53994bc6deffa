"""A run that is killed and started again ends with the bits of one that never was."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

JOB = Path(__file__).parent / "job.py"


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    # the first process compiles, the others load its program: equal bits there are part of the claim
    environment = {**os.environ, "METATOWER_CACHE": str(tmp_path_factory.mktemp("cache")), "METATOWER_NO_CACHE": ""}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)

    def launch(folder, *end):
        command = [sys.executable, "-W", "error", str(JOB), str(folder), *end]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    return launch


@pytest.fixture(scope="module")
def whole(launch, tmp_path_factory):
    """(final bits, log) of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    digest, said = launch(folder).communicate(timeout=300)
    assert re.fullmatch(r"[0-9a-f]{64}\n", digest), said
    assert said == ""
    return digest, (folder / "metrics.jsonl").read_bytes()


def finish(launch, folder, whole):
    digest, said = launch(folder).communicate(timeout=300)
    assert digest == whole[0], said
    assert said == ""
    assert (folder / "metrics.jsonl").read_bytes() == whole[1]
    names = sorted(path.name for path in folder.iterdir())
    assert [name for name in names if "tmp" in name] == []
    assert len([name for name in names if name.startswith("checkpoint-")]) <= 2


def test_killed_at_random_times(launch, whole, tmp_path):
    _killed_at_random_times(launch, whole, tmp_path / "run", times=3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_at_many_random_times(launch, whole, tmp_path, seed):
    _killed_at_random_times(launch, whole, tmp_path / "run", times=8, seed=seed)


def _killed_at_random_times(launch, whole, folder, times, seed):
    delays, killed = random.Random(seed), 0
    for _ in range(times):
        log = folder / "metrics.jsonl"
        before = log.stat().st_size if log.exists() else 0
        process = launch(folder, "slow")
        limit = time.monotonic() + 60
        while (not log.exists() or log.stat().st_size <= before) and process.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.005)
        time.sleep(delays.uniform(0, 0.4))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed == times
    finish(launch, folder, whole)


@pytest.mark.parametrize(
    "moments", [(3, 5), pytest.param((1, 2, 4, 6, 7, 8, 9, 10, 11, 13, 17), marks=pytest.mark.slow)]
)
def test_killed_while_writing(launch, whole, tmp_path, moments):
    folder = tmp_path / "run"
    for moment in moments:
        process = launch(folder, f"write:{moment}")
        process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL
    finish(launch, folder, whole)


def test_full_disk_is_one_sentence_and_leaves_whole_files(launch, whole, tmp_path):
    folder = tmp_path / "run"
    process = launch(folder, "full:12")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert re.search(r"UserError: Cannot write .*: the disk is full\. Free some space", said.splitlines()[-1])
    for path in folder.glob("checkpoint-*"):
        assert sorted(each.name for each in path.iterdir()) == ["meta.json", "state.safetensors"]
    finish(launch, folder, whole)


def test_second_interrupt_ends_at_once(launch, whole, tmp_path):
    folder = tmp_path / "run"
    process = launch(folder, "slow")
    log = folder / "metrics.jsonl"
    while not log.exists() or log.stat().st_size == 0:  # until it trains
        time.sleep(0.005)
    # the first is obeyed with a checkpoint, unless the second comes first; signals too close together arrive as one
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < 10:
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert time.monotonic() - began < 10
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0, said
    finish(launch, folder, whole)
