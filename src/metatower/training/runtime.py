"""The process around the training: its devices, where compiled programs are kept, and how it is asked to stop."""

import ctypes
import gc
import hashlib
import importlib.util
import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType

import jax
import jaxlib

from metatower.core.errors import UserError
from metatower.core.places import cache_folder

_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -4, -1, -2
"""Options of `mallopt`, from <malloc.h>."""
AGAIN = 5.0
"""Seconds after which somebody who is still there after a SIGTERM is interrupted once more."""
MAPPINGS = 20_000
"""Mappings of memory after which programs are forgotten: one job more may then add 45,000."""


def setup(devices: int | None = None) -> Path | None:
    """To be called before anything is computed: every processor core becomes a device, and compiled programs are kept.

    Memory that is freed stays with the process (glibc's `mallopt`; not where `MALLOC_*` or `GLIBC_TUNABLES` are set).
    Devices share the tasks of a training step where that is faster (`metatower.core.sharding`).

    Kept programs let only the first run of a tower wait for the compiler. They go to `METATOWER_CACHE`, or to the
    user's cache folder; `METATOWER_NO_CACHE=1` keeps none, and a folder chosen through JAX
    (`JAX_COMPILATION_CACHE_DIR`) stays. It is JAX's own cache, which trusts what it finds: point it at no folder that
    others may write to.

    Args:
        devices: use so many processor cores or GPUs only, at least 1; all that this process may use if None.

    Returns:
        The folder, None if there is none. A folder that cannot be written to is no error: nothing is kept then.
    """
    _keep_memory()
    _choose_devices(devices)
    if os.environ.get("METATOWER_NO_CACHE", "0") not in ("", "0"):
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen is None:
        try:
            # programs are of one machine: on another they would be refused, or worse
            folder = cache_folder() / "compiled" / machine()
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                return None
        except (OSError, RuntimeError):  # no such place, or no home
            return None
        chosen = str(folder)
        jax.config.update("jax_compilation_cache_dir", chosen)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return Path(chosen)


def forget_programs(above: int = MAPPINGS) -> bool:
    """Lets JAX forget its compiled programs if the process has more than so many mappings of memory.

    Each program takes some, a large tower tens of thousands, and Linux allows a process 65,530: beyond them the
    compiler crashes. To be called between jobs that share few programs; what is needed again is compiled or loaded
    again.

    Returns:
        Whether it did. Where the mappings cannot be counted (not Linux) it never does.
    """
    try:
        mappings = Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return False
    if mappings > above:
        jax.clear_caches()
        gc.collect()
    return mappings > above


def _keep_memory() -> None:
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018
        # XLA allocates and frees the temporaries of every step: given back, the kernel would have to map and zero
        # them anew each time, which took a third of a convolutional step. Every thread keeps an arena of its own: for
        # a single one the compiler's threads wait so much that compiling takes two thirds longer
        for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26)):
            libc.mallopt(option, value)


def _choose_devices(number: int | None) -> None:
    if number is not None and number < 1:
        raise UserError(f"Expected at least 1 device, got {number}.")
    if number is not None and number > cores() and importlib.util.find_spec("jax_plugins") is None:
        raise UserError(f"Expected --devices of at most {cores()}, the cores that this process may use; got {number}.")
    chosen = jax.config.values["jax_num_cpu_devices"] > 0 or "host_platform_device_count" in os.environ.get(
        "XLA_FLAGS", ""
    )
    if number is not None:
        jax.config.update("jax_cuda_visible_devices", ",".join(map(str, range(number))))
    if number is not None or not chosen:  # what was chosen through JAX stays
        with suppress(RuntimeError):  # JAX is at work already: it keeps the devices that it has
            jax.config.update("jax_num_cpu_devices", number or cores())


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """A short name for this kind of processor with this compiler."""
    facts = [platform.system(), platform.machine(), platform.processor(), jax.__version__, jaxlib.__version__]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:  # not Linux
        pass
    return f"jax-{jax.__version__}-{hashlib.sha256(chr(10).join(facts).encode()).hexdigest()[:12]}"


@contextmanager
def interrupted_by_sigterm() -> Generator[None]:
    """Inside this context SIGTERM is a KeyboardInterrupt, as Ctrl-C is, where it would have ended the process.

    The error is raised again every `AGAIN` seconds until the context is left: where a signal comes while JAX collects
    garbage, its callback loses the error. Not for a process that waits for others: no handler runs while it does.
    """
    left = threading.Event()

    def repeat():
        while not left.wait(AGAIN):
            os.kill(os.getpid(), signal.SIGTERM)

    def handle(number: int, frame: FrameType | None):
        if left.is_set():  # it came on the way out
            return
        if repeating.ident is None:
            repeating.start()
        signal.default_int_handler(number, frame)

    repeating = threading.Thread(target=repeat, daemon=True)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        left.set()
        if repeating.ident is not None:
            repeating.join()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Stop:
    """Inside this context Ctrl-C and SIGTERM only set `asked`; a second Ctrl-C ends at once.

    Whoever looks at `asked` leaves the context with an error; what came too late to be seen is a KeyboardInterrupt at
    its end.

    Outside the main thread, where Python lets nobody handle signals, it does nothing.

    Args:
        tell: takes a line for the person who pressed Ctrl-C.
    """

    GRACE = 1.0
    """Seconds between a second Ctrl-C and a hard end, should Python be unable to answer (the compiler is at work)."""

    def __init__(self, tell: Callable[[str], None]):
        self.asked = False
        self._tell = tell
        self._left = threading.Event()

    def __enter__(self) -> "Stop":
        self._exits = ExitStack()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # None: a handler that was not installed from Python, and could not be put back
                if (old := signal.getsignal(number)) is not None:
                    signal.signal(number, self._handle)
                    self._exits.callback(signal.signal, number, old)
            self._watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._exits.close()
        if self.asked and kind is None:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: object) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def _watch(self) -> None:
        # while the compiler works, the main thread cannot run handlers, but another thread can read this socket
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        old = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        if old != -1:  # an event loop already listens: leave it alone
            signal.set_wakeup_fd(old)
            ours.close()
            theirs.close()
            return
        thread = threading.Thread(target=self._listen, args=(ours,), daemon=True)
        thread.start()

        def leave():
            signal.set_wakeup_fd(-1)
            theirs.close()
            thread.join()
            ours.close()

        self._exits.callback(leave)

    def _listen(self, ours: socket.socket) -> None:
        pressed = 0
        while received := ours.recv(16):
            for number in received:
                pressed += number == signal.SIGINT
                if number == signal.SIGTERM or (number == signal.SIGINT and pressed == 1):
                    self._tell("Stopping after the steps under way; Ctrl-C (again) ends at once.")
            if pressed > 1 and not self._left.wait(self.GRACE):
                os._exit(130)
