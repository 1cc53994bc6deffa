"""Where the library keeps files of its own."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Where this library keeps what it can make again: `METATOWER_CACHE`, else the platform's place for such files."""
    if given := os.environ.get("METATOWER_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "metatower"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "metatower" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metatower"
