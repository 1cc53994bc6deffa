"""`metrics.jsonl`: one line of numbers per logged step. No clock in it, so equal runs write equal bytes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metatower.core.errors import UserError
from metatower.training.files import to_json, writing

LINES = 1000
"""About this many lines per run."""


def is_logged(step: int, steps: int) -> bool:
    """Whether step number `step` (the first is 1) of `steps` gets a line: a function of these two alone."""
    return step % max(1, -(-steps // LINES)) == 0 or step in (1, steps)


class Log:
    """Appends lines to a file, after cutting off what a killed run wrote beyond `step`."""

    def __init__(self, path: Path, step: int = 0):
        self._path = Path(path)
        with writing(self._path):
            self._file = open(self._path, "ab")  # noqa: SIM115 (closed by `close`)
            self._file.truncate(_length_until(self._path, step))

    def write(self, step: int, numbers: Mapping[str, Any]) -> None:
        """One line for `step`."""
        line = {"step": step, **{name: shortest(number) for name, number in numbers.items()}}
        with writing(self._path):
            self._file.write((to_json(line) + "\n").encode())

    def flush(self) -> None:
        """Lets others read the lines so far; a power cut may still take them."""
        with writing(self._path):
            self._file.flush()

    def sync(self) -> None:
        """Returns when all lines are on the disk."""
        self.flush()
        with writing(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flushes and closes the file."""
        with writing(self._path):
            self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, without a last one that is not yet complete.

    Raises:
        UserError: unreadable.
    """
    import json

    try:
        lines = Path(path).read_bytes().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith(b"\n")]
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} ({error}): it is not as training has written it.") from error


def shortest(number: Any) -> Any:
    """Python numbers with the fewest digits that tell a float32 from its neighbours."""
    array = np.asarray(number)
    if array.ndim:
        return [shortest(each) for each in array]
    return float(str(array[()])) if np.issubdtype(array.dtype, np.floating) else array.item()


def _length_until(path, step):
    import json

    length = 0
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                break
        except (ValueError, KeyError, TypeError):
            break
        length += len(line)
    return length
