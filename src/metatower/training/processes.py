"""Several processes, on one machine or many, that run the same program and share the tasks of every training step.

Each runs the whole recipe; what they compute together are the steps (`metatower.core.sharding`), after which all hold
the same state. So only the first needs to keep files: the others work in a copy of its folder and throw it away.
"""

import ctypes
import hashlib
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax
import numpy as np

from metatower.core.errors import UserError

_PDEATHSIG = 1
"""An option of `prctl`, from <sys/prctl.h>."""
DETECTED = ("slurm", "ompi")
"""Launchers that tell each process its place (JAX's own detection)."""


def join(coordinator: str, processes: int | None, process: int | None) -> None:
    """Makes this process one of several, before anything is computed; returns when all are there.

    Args:
        coordinator: where the first process listens, as HOST:PORT, the same for all; or the launcher that knows:
            `slurm` or `ompi`.
        processes: how many there are; the launcher may know.
        process: which this is, from 0; the launcher may know.

    Raises:
        UserError: a place that cannot be, or others that do not come.
    """
    address, launcher = (None, coordinator) if coordinator in DETECTED else (coordinator, None)
    if address is not None and not _is_address(address):
        raise UserError(
            f"--coordinator: expected HOST:PORT with a port from 1 to 65535, {' or '.join(DETECTED)}, got "
            f"{coordinator!r}."
        )
    if address is not None and (processes is None or process is None or not 0 <= process < processes):
        raise UserError(
            "With --coordinator HOST:PORT, expected --processes N and --process I from 0 to N - 1; got "
            f"--processes {processes} and --process {process}."
        )
    try:
        jax.distributed.initialize(address, processes, process, cluster_detection_method=launcher)
    except KeyError as error:  # what JAX's detection looks for in the environment
        raise UserError(
            f"--coordinator {coordinator}: expected a process that was started by it, but the environment has no "
            f"{error.args[0]}. Start metatower with its launcher, or give HOST:PORT."
        ) from error
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"The processes did not find each other at {coordinator}: {str(error).splitlines()[0]}. Expected all of "
            "them to be started with the same --coordinator and --processes, within five minutes."
        ) from error


def _is_address(text: str) -> bool:
    """Whether it is HOST:PORT; JAX crashes on ports that cannot be, and waits for hosts without a name."""
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535


def end_with(parent: int) -> None:
    """This process gets SIGTERM as soon as its parent, who watches over it, is no more (on Linux)."""
    with suppress(OSError, AttributeError):  # another system
        ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before that
        os.kill(os.getpid(), signal.SIGTERM)


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def agree(number: int, wish: bool) -> tuple[int, bool]:
    """The first process's number, and whether any process has the wish; the same answer in all of them."""
    if jax.process_count() == 1:
        return number, wish
    from jax.experimental import multihost_utils

    found = np.asarray(multihost_utils.process_allgather(np.array([number, wish], np.int32)))
    return int(found[0, 0]), bool(found[:, 1].any())


def all_have(text: str) -> bool:
    """Whether this text is the same in all processes; the same answer in all of them."""
    if jax.process_count() == 1:
        return True
    from jax.experimental import multihost_utils

    mine = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.int32)
    return len(np.unique(multihost_utils.process_allgather(mine), axis=0)) == 1


@contextmanager
def own_folder(folder: Path) -> Generator[Path, None, None]:
    """`folder` for the first process, for each other one a copy that is gone afterwards."""
    if jax.process_count() == 1:
        yield folder
        return
    from jax.experimental import multihost_utils

    with tempfile.TemporaryDirectory(prefix="metatower-") as temporary:
        copy = Path(temporary) / "run"
        if not is_first() and folder.is_dir():
            shutil.copytree(folder, copy, symlinks=True)
        # nothing changes in the folder before all have their copy
        multihost_utils.sync_global_devices("copied")
        yield folder if is_first() else copy
