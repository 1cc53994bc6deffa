"""Where files go on each platform."""

import sys
from pathlib import Path

from metatower.core.places import cache_folder


def test_places(monkeypatch, tmp_path):
    monkeypatch.delenv("METATOWER_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / "metatower"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "metatower"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library/Caches/metatower"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local/metatower/Cache"
    monkeypatch.setenv("METATOWER_CACHE", "~/here")
    assert cache_folder() == Path.home() / "here"
