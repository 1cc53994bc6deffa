import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from metatower.training import runtime

PROGRAM = """
import jax, jax.numpy as jnp
from metatower.training import runtime
print(runtime.setup())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x))(jnp.ones((9, 9))).sum().item().hex())
"""


def say(**environment):
    clean = {name: each for name, each in os.environ.items() if "CACHE" not in name}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], env={**clean, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_programs_are_kept_and_loaded_without_a_word(tmp_path):
    cold = say(METATOWER_CACHE=str(tmp_path))
    folder = Path(cold[0])
    assert folder == tmp_path / "compiled" / runtime.machine()
    kept = {path.name for path in folder.iterdir()}
    assert any(name.startswith("jit__lambda") for name in kept)
    assert say(METATOWER_CACHE=str(tmp_path)) == cold
    assert {path.name for path in folder.iterdir() if path.name.endswith("-cache")} <= kept


def test_none_where_none_is_wanted_or_possible(tmp_path):
    assert say(METATOWER_CACHE=str(tmp_path), METATOWER_NO_CACHE="1")[0] == "None"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert say(METATOWER_CACHE=str(tmp_path / "file"))[0] == "None"
    assert say(METATOWER_CACHE="/proc/nowhere")[0] == "None"


def test_jax_has_the_first_word(tmp_path):
    assert say(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"), METATOWER_CACHE=str(tmp_path / "m"))[0].endswith("own")


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="glibc's"
)
@pytest.mark.parametrize(("environment", "stays"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_freed_memory_stays_with_the_process(environment, stays):
    program = """
import resource
from metatower.training import runtime
runtime.setup()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = bytearray(2**26)
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    clean = {name: each for name, each in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    found = subprocess.run(
        [sys.executable, "-c", program], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    pages = 2**26 // 4096
    assert (int(found.stdout) < pages / 10) == stays


def test_the_machine_has_one_name():
    assert runtime.machine() == runtime.machine()
    assert runtime.machine().startswith(f"jax-{jax.__version__}-")


def test_stop_leaves_an_event_loops_descriptor_alone():
    import asyncio

    async def inside():
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: None)
        before = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(before)
        with runtime.Stop(print):
            pass
        after = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(after)
        return before, after

    before, after = asyncio.run(inside())
    assert before == after != -1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_nobody_looked_at_is_raised_at_the_end(number):
    def press():
        with runtime.Stop(print):
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        press()


def test_sigterm_interrupts_inside_the_context_only():
    def ask():
        with runtime.interrupted_by_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        ask()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_lost_interrupt_comes_again(monkeypatch):
    """As where the signal comes while a callback of JAX runs, which swallows errors."""
    monkeypatch.setattr(runtime, "AGAIN", 0.05)
    with runtime.interrupted_by_sigterm():
        for number in range(3):
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012
                if number == 0:
                    os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
    time.sleep(0.2)  # nobody is interrupted any more, and SIGTERM would end the process


def test_second_interrupt_raises():
    said = []

    def press_twice():
        with runtime.Stop(said.append) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.asked
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert len(said) == 1
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux's")
def test_programs_are_forgotten_when_the_process_has_many_mappings():
    compiled = jax.jit(lambda x: x + 1)
    compiled(1.0)
    assert compiled._cache_size() == 1
    assert not runtime.forget_programs(above=10**6)
    assert compiled._cache_size() == 1
    assert runtime.forget_programs(above=1)
    assert compiled._cache_size() == 0
    assert compiled(1.0) == 2.0
