"""One run in several processes: the same result as in one, one voice, one set of files, one clear end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from metatower import launch
from metatower.cli import main

# steps that are worth sharing between processes, and few of them
JOB = ["maml-glyphs", "--steps", "12", "--batch", "24", "--queries", "3", "--episodes", "50"]
RUN = [sys.executable, "-m", "metatower.cli", "train", *JOB, "--progress", "plain", "--checkpoint-every", "0"]


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    """Whether it is there, and not only waiting for somebody to ask how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes through /proc, which Linux has")
def test_a_killed_process_ends_the_run_and_one_process_continues_it(tmp_path):
    folder, longer = tmp_path / "run", [*RUN, "--steps", "400"]
    run = subprocess.Popen(
        [*longer, "--out", str(folder), "--processes", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(list(folder.glob("checkpoint-*"))) > 0 or run.poll() is not None)
    first, second = children(run.pid)
    os.kill(second, signal.SIGKILL)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1, said
    assert "process 1 of 2 was ended by SIGKILL" in said
    assert f"metatower resume {folder} --processes 2" in said
    assert "Traceback" not in said
    assert not Path(f"/proc/{first}").exists()
    assert list(folder.glob("checkpoint-*"))
    assert main(["resume", str(folder), "--progress", "silent"]) == 0
    assert json.loads((folder / "summary.json").read_text())["recipe"] == "maml-glyphs"


@pytest.mark.skipif(sys.platform != "linux", reason="the children hear of it through prctl, which Linux has")
def test_without_its_launcher_no_process_goes_on(tmp_path):
    folder = tmp_path / "run"
    run = subprocess.Popen(
        [*RUN, "--steps", "100000", "--out", str(folder), "--processes", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: len(list(folder.glob("checkpoint-*"))) > 0 or run.poll() is not None)
    workers = children(run.pid)
    assert len(workers) == 2
    run.kill()
    run.wait()
    wait_until(lambda: not any(map(runs, workers)))
    assert list(folder.glob("checkpoint-*"))


def test_two_processes_learn_what_one_learns(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, processes in zip(folders, ("1", "2"), strict=True):
        done = subprocess.run(
            [*RUN, "--out", str(folder), "--processes", processes], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert "too short to be shared" not in done.stdout + done.stderr
        assert done.stderr.count("judging: MAML  50/50") == 1, "only one of them speaks"
    one, two = (load_file(folder / "model/model.safetensors") for folder in folders)
    for name in one:
        # twelve steps of Adam amplify what the order of summation does
        np.testing.assert_allclose(two[name], one[name], atol=2e-4)
    # checkpoints are of whatever steps the clock made them at
    names = [sorted(path.name for path in folder.iterdir() if "checkpoint" not in path.name) for folder in folders]
    assert names[0] == names[1]


def test_processes_that_were_started_otherwise_say_so(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        where = f"localhost:{free.getsockname()[1]}"
    runs = []
    for process, seed in ("0", "0"), ("1", "1"):
        given = ["--seed", seed, "--coordinator", where, "--processes", "2", "--process", process]
        command = [*RUN, "--out", str(tmp_path / "run"), *given]
        runs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for run in runs:
        _, said = run.communicate(timeout=200)
        assert run.returncode == 2, said
        assert "The processes of this run differ in their options" in said
        assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--processes", "0"], "--processes of at least 1, got 0"),
        (["--process", "1"], "needs --coordinator"),
        (["--devices", "0"], "at least 1 device, got 0"),
        (["--devices", "5000"], "cores that this process may use; got 5000"),
        (["--checkpoint-every", "nan"], "seconds of at least 0, got nan"),
        (["--checkpoint-every", "-1"], "seconds of at least 0, got -1"),
        (["--batch", str(2**52), "--steps", "1"], "more memory than there is"),
        (["--coordinator", "here", "--processes", "2", "--process", "0"], "expected HOST:PORT with a port"),
        (["--coordinator", "here:abc", "--processes", "1", "--process", "0"], "65535, slurm or ompi, got 'here:abc'"),
        (["--coordinator", "here:99999", "--processes", "2", "--process", "0"], "a port from 1 to 65535"),
        (["--coordinator", ":1234", "--processes", "1", "--process", "0"], "expected HOST:PORT"),
        (["--coordinator", "here:1234", "--processes", "2", "--process", "2"], "from 0 to N - 1"),
        (["--coordinator", "here:1234"], "expected --processes N"),
    ],
)
def test_places_that_cannot_be(options, words, tmp_path, capsys):
    assert main(["train", "maml-sinusoid", "--out", str(tmp_path / "run"), *options]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("launcher", "variable"), [("slurm", "SLURM_JOB_ID"), ("ompi", "OMPI_")])
def test_launchers_that_have_not_started_it(launcher, variable, tmp_path):
    # in a process of its own: JAX joins others before it has computed anything, or not at all
    command = [*RUN, "--out", str(tmp_path / "run"), "--coordinator", launcher]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "OMPI_"))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 2
    assert f"was started by it, but the environment has no {variable}" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_cores_are_dealt(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 4, 6, 8}, raising=False)
    assert launch._dealt(2) == [{0, 2}, {4, 6, 8}]
    assert launch._dealt(5) == [{0}, {2}, {4}, {6}, {8}]
    assert launch._dealt(6) == [{0}, {2}, {4}, {6}, {8}, {0}]


@pytest.mark.parametrize(
    ("codes", "code", "words"),
    [
        ([0, 0], 0, ""),
        ([2, None], 2, ""),  # the first has said itself what is wrong
        ([2, -6], 2, ""),  # JAX aborts those that have lost the first
        ([130, 130], 130, ""),
        ([launch.LOST, 2], 1, "process 1 of 2 ended with code 2: no space"),
        ([launch.LOST, -9], 1, "process 1 of 2 was ended by SIGKILL"),
        ([-15, launch.LOST], 1, "process 0 of 2 was ended by SIGTERM"),
        ([None, launch.LOST], 1, "process 0 of 2 did not answer any more"),
        ([launch.LOST, None], 1, "process 1 of 2 did not answer any more"),
    ],
)
def test_the_one_to_blame(codes, code, words, tmp_path, capsys):
    said = [tmp_path / "0", tmp_path / "1"]
    for file in said:
        file.write_text("chatter\nno space\n")
    assert launch._conclude(codes, said, "metatower resume run") == code
    assert words in capsys.readouterr().err
