"""The process around the training: where compiled programs are kept between runs, and how it is asked to stop."""

import hashlib
import os
import platform
import signal
import sys
import threading
from pathlib import Path
from types import TracebackType

import jax
import jaxlib


def setup() -> Path | None:
    """Keeps compiled programs between processes, so that only the first run of a tower waits for the compiler.

    They go to `METATOWER_CACHE`, or to the user's cache folder; `METATOWER_NO_CACHE=1` keeps none, and a folder
    chosen through JAX (`JAX_COMPILATION_CACHE_DIR`) stays. It is JAX's own cache, which trusts what it finds:
    point it at no folder that others may write to.

    Returns:
        The folder, None if there is none. A folder that cannot be written to is no error: nothing is kept then.
    """
    if os.environ.get("METATOWER_NO_CACHE", "0") not in ("", "0"):
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    if jax.config.jax_compilation_cache_dir is None:
        try:
            # programs are of one machine: on another they would be refused, or worse
            folder = cache_folder() / "compiled" / machine()
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                return None
        except (OSError, RuntimeError):  # no such place, or no home
            return None
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return Path(jax.config.jax_compilation_cache_dir)


def cache_folder() -> Path:
    """Where this library keeps what it can make again: `METATOWER_CACHE`, else the platform's place for such files."""
    if given := os.environ.get("METATOWER_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "metatower"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "metatower" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metatower"


def machine() -> str:
    """A short name for this kind of processor with this compiler."""
    facts = [platform.system(), platform.machine(), platform.processor(), jax.__version__, jaxlib.__version__]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:  # not Linux
        pass
    return f"jax-{jax.__version__}-{hashlib.sha256(chr(10).join(facts).encode()).hexdigest()[:12]}"


class Stop:
    """Inside this context Ctrl-C and SIGTERM only set `asked`; a second Ctrl-C ends at once.

    Outside the main thread, where Python lets nobody handle signals, it does nothing.
    """

    def __init__(self):
        self.asked = False
        self._old: dict[int, object] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # None: a handler that was not installed from Python, and could not be put back
                if signal.getsignal(number) is not None:
                    self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # ty: ignore
        self._old = {}

    def _handle(self, number: int, frame: object) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
