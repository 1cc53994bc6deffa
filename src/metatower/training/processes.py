"""Several processes, on one machine or many, that run the same program and share the tasks of every training step.

Each runs the whole recipe; what they compute together are the steps (`metatower.core.sharding`), after which all hold
the same state. So only the first needs to keep files: the others work in a copy of its folder and throw it away.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

from metatower.core.errors import UserError

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
    if address is not None and ":" not in address:
        raise UserError(f"--coordinator: expected HOST:PORT, {' or '.join(DETECTED)}, got {coordinator!r}.")
    if address is not None and (processes is None or process is None or not 0 <= process < processes):
        raise UserError(
            "With --coordinator HOST:PORT, expected --processes N and --process I from 0 to N - 1; got "
            f"--processes {processes} and --process {process}."
        )
    try:
        jax.distributed.initialize(address, processes, process, cluster_detection_method=launcher)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"The processes did not find each other at {coordinator}: {str(error).splitlines()[0]}. Expected all of "
            "them to be started with the same --coordinator and --processes, within five minutes."
        ) from error


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


@contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
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
