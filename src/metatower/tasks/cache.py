"""Files that are built or fetched once: where they live, and arrays that are checked whenever they are read."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from metatower.core.places import cache_folder

Arrays = dict[str, np.ndarray]
_CHECKSUM = "sha256"


def cached(name: str, build: Callable[[], Arrays]) -> Arrays:
    """The arrays of `build()`, kept in the cache as `name`.npz.

    A file that is missing, truncated or altered is built again. Where the cache cannot be written the arrays
    are returned all the same.

    Args:
        name: must change whenever what `build` would give changes.
    """
    path = cache_folder() / f"{name}.npz"
    arrays = _read(path)
    if arrays is None:
        arrays = build()
        try:
            write_arrays(path, arrays)
        except OSError as error:
            logging.getLogger(__name__).warning(
                "Could not keep %s (%s), so it is built each time; METATOWER_CACHE names another folder.",
                path,
                error,
            )
    return arrays


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Writes a compressed .npz with a checksum in it; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            contents: dict[str, Any] = {**arrays, _CHECKSUM: np.array(checksum(arrays))}
            np.savez_compressed(file, **contents)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def checksum(arrays: Arrays) -> str:
    """SHA-256 over names, types, shapes and contents."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data.cast("B") if array.size and array.dtype.kind != "U" else array.tobytes())
    return digest.hexdigest()


def _read(path: Path) -> Arrays | None:
    """The checked arrays in `path`, or None if there are none to trust."""
    try:
        # opened here, as numpy leaves a file that is no archive open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged archive has many ways to fail, and all of them mean: build again
        if path.exists():
            logging.getLogger(__name__).info("Building %s again: %s", path, error)
        return None
    expected = arrays.pop(_CHECKSUM, None)
    return arrays if expected is not None and str(expected) == checksum(arrays) else None
