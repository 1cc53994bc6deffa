import signal
import subprocess
import sys
import threading
import time

import pytest

from metatower.training.beside import beside


def test_jobs_are_done_in_their_order_beside_the_context_which_waits_for_the_one_under_way():
    done, met, second = [], threading.Barrier(2, timeout=20), threading.Event()

    def meets():
        met.wait()
        done.append("met")

    def slow():
        second.set()
        time.sleep(0.2)
        done.append("second")

    with beside(meets, slow):
        met.wait()  # would break if the job waited for the context
        assert second.wait(20)
    assert done == ["met", "second"]


def test_a_job_that_fails_leaves_the_others_and_the_context_alone():
    done = threading.Event()
    with beside(lambda: 1 / 0, done.set):
        assert done.wait(20)


def test_after_the_end_of_the_context_no_further_job_is_begun():
    begun, go, done = threading.Event(), threading.Event(), []

    def first():
        begun.set()
        assert go.wait(20)

    with beside(first, lambda: done.append("never")):
        assert begun.wait(20)
        threading.Timer(0.2, go.set).start()
    assert not done


def test_after_a_failure_inside_no_further_job_is_begun():
    begun, go, done = threading.Event(), threading.Event(), []

    def first():
        begun.set()
        assert go.wait(20)

    def interrupted():
        with beside(first, lambda: done.append("never")):
            assert begun.wait(20)
            threading.Timer(0.2, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not done


INTERRUPTED = """
import signal, sys, time
import jax, jax.numpy as jnp
from metatower.training.beside import beside

signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it is ignored

def deep(x):
    for i in range({depth}):
        x = jnp.sin(x * i) + x[::-1]
    return x

lowered = jax.jit(deep).lower(jnp.ones(3))

def compile_and_wait():
    lowered.compile()
    time.sleep(1)
    print("done", flush=True)

try:
    with beside(compile_and_wait):
        print("waiting", flush=True)
        if {inside}:
            time.sleep(60)
except KeyboardInterrupt:
    sys.exit(3)
"""


@pytest.mark.parametrize(
    ("presses", "depth", "code", "rest"), [(1, 100, 3, "done\n"), (2, 3000, 130, "")], ids=["once", "twice"]
)
@pytest.mark.parametrize("inside", [False, True])
def test_ctrl_c_while_the_compiler_works_ends_the_process_and_crashes_nothing(presses, depth, code, rest, inside):
    program = [sys.executable, "-c", INTERRUPTED.format(depth=depth, inside=inside)]
    run = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "waiting\n"
    for _ in range(presses):
        time.sleep(0.2)
        run.send_signal(signal.SIGINT)
    out, said = run.communicate(timeout=60)
    assert run.returncode == code, said
    assert out == rest
    assert "Waiting for the program that is being compiled" in said
    assert "terminate" not in said
