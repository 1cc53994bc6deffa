"""Files that are either whole or absent: atomic writing, and what to say when the disk refuses."""

import errno
import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from metatower.core.errors import UserError

MARK = ".tmp-"
"""Unfinished files and folders are called `.<name>.tmp-<process>`; `clean` removes what a killed process left."""


@contextmanager
def writing(path: Path) -> Generator[None, None, None]:
    """Turns the refusal of the disk to write `path` into one sentence (`UserError`)."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full. Free some space, or choose another folder",
            errno.EDQUOT: "the disk quota is used up. Free some space, or choose another folder",
            errno.EROFS: "the disk is read-only. Choose another folder",
            errno.EACCES: "permission denied. Choose a folder that you may write to",
            errno.EPERM: "permission denied. Choose a folder that you may write to",
            errno.ENOTDIR: "part of this path is a file, not a folder. Choose another folder",
            errno.EEXIST: "part of this path is a file, not a folder. Choose another folder",
        }
        reason = reasons.get(error.errno or 0, f"{error.strerror or error}. Choose another folder")
        raise UserError(f"Cannot write {path}: {reason}; files written before are untouched.") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: after a crash at any moment it has its old content or all of the new one.

    Raises:
        UserError: the disk refuses.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}{MARK}{os.getpid()}"
    with writing(path):
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """`write_text` of readable JSON; numbers that are not finite become null, as JSON has no word for them."""
    write_text(path, to_json(content, indent=2) + "\n")


def to_json(content: Any, **how: Any) -> str:
    """JSON text that every reader accepts."""
    return json.dumps(_plain(content), allow_nan=False, ensure_ascii=False, **how)


def read_json(path: Path, needs: tuple[str, ...] = ()) -> dict[str, Any]:
    """The JSON object in a file, which has the fields that are needed.

    Raises:
        UserError: missing, unreadable, not a JSON object, or without such a field.
    """
    try:
        content = json.loads(Path(path).read_bytes().decode())
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}. Check the folder's name; a complete folder has one.") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): damaged, or not a file of this library.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(content).__name__}: not a file of this library.")
    if lacking := [name for name in needs if name not in content]:
        raise UserError(
            f"{path} has no {lacking[0]!r}: damaged, or of another version. Move it away: what it held is made again."
        )
    return content


@contextmanager
def new_folder(folder: Path) -> Generator[Path, None, None]:
    """A temporary folder to fill, which becomes `folder` (replacing any) when the block ends without an error.

    Raises:
        UserError: the disk refuses.
    """
    folder = Path(folder)
    temporary = folder.parent / f".{folder.name}{MARK}{os.getpid()}"
    with writing(folder):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            _sync_folder(temporary)
            if folder.exists():
                shutil.rmtree(folder)
            os.rename(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync_folder(folder.parent)


def check_unused(*paths: Path | None) -> None:
    """Nothing of this name is there yet; None stands for what is not wanted.

    Raises:
        UserError: something is.
    """
    for path in paths:
        if path is not None and path.exists():
            raise UserError(f"{path} is there already, and is kept. Choose another --out.")


def make_folder(folder: Path) -> Path:
    """`folder`, made if need be.

    Raises:
        UserError: the disk refuses, or something else has this name.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def clean(folder: Path) -> None:
    """Removes what a killed process left unfinished in `folder`."""
    for path in Path(folder).glob(f".*{MARK}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


@contextmanager
def sole_user(folder: Path) -> Generator[None, None, None]:
    """Holds `folder` for one process at a time; the operating system lets go when the process ends, however it ends.

    Raises:
        UserError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # not on this platform
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another process is training in {folder}. Wait for it, or choose another one.") from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    # a rename is only safe from a power cut once the folder itself is on disk; not every system can do it
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _plain(content):
    if isinstance(content, dict):
        return {str(name): _plain(each) for name, each in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(each) for each in content]
    if isinstance(content, float):
        return content if content - content == 0 else None
    if isinstance(content, Path):
        return str(content)
    if hasattr(content, "tolist"):  # NumPy and JAX arrays and scalars
        return _plain(content.tolist())
    return content
