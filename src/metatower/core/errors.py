"""Errors that are the user's to mend: one clear sentence, no traceback on the command line."""

from pathlib import Path
from shlex import quote


class UserError(ValueError):
    """Something outside the library is not as it must be; the message says what, and what to try."""


def resume_command(folder: Path) -> str:
    """What continues the run in this folder, to be copied into a shell."""
    return f"metatower resume {quote(str(folder))}"
