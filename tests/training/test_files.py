import errno
import os

import numpy as np
import pytest

from metatower.core.errors import UserError
from metatower.training import files, train


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_text(path, "one")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"Cannot write .*a\.txt: the disk is full"):
        files.write_text(path, "two")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_new_folder_is_whole_or_absent(tmp_path):
    for text in ("one", "two"):
        with files.new_folder(tmp_path / "f") as folder:
            assert folder != tmp_path / "f"
            files.write_text(folder / "a", text)
        assert (tmp_path / "f/a").read_text() == text

    def fail():
        with files.new_folder(tmp_path / "f") as folder:
            files.write_text(folder / "a", "three")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "f/a").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_full_disk_during_training(counter, tmp_path, monkeypatch):
    train(counter(), None, steps=2, seed=0, folder=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="the disk is full"):
        train(counter(), None, steps=4, seed=0, folder=tmp_path)
    monkeypatch.undo()
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path: content for path, content in after.items() if path.name != "metrics.jsonl"} == {
        path: content for path, content in before.items() if path.name != "metrics.jsonl"
    }
    assert int(train(counter(), None, steps=4, seed=0, folder=tmp_path)["count"]) == 4


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_folder_that_cannot_be_made(counter, tmp_path, monkeypatch, number):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(UserError, match=r"Cannot write .*/run: .*[Cc]hoose") as caught:
        train(counter(), None, steps=1, seed=0, folder=tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_folder_under_a_file(counter, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="is a file, not a folder"):
            train(counter(), None, steps=1, seed=0, folder=folder)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_field_that_is_missing_is_one_sentence(tmp_path):
    files.write_json(tmp_path / "a.json", {"there": 1})
    assert files.read_json(tmp_path / "a.json", ("there",)) == {"there": 1}
    with pytest.raises(UserError, match=r"has no 'gone': damaged, or of another version\. Move it away"):
        files.read_json(tmp_path / "a.json", ("there", "gone"))


def test_json_that_every_reader_accepts(tmp_path):
    content = {
        "nan": float("nan"),
        "inf": np.inf,
        "array": np.arange(2),
        "path": tmp_path,
        "ü": (1, True, None),
        3: "x",
    }
    files.write_json(tmp_path / "a.json", content)
    assert files.read_json(tmp_path / "a.json") == {
        "nan": None,
        "inf": None,
        "array": [0, 1],
        "path": str(tmp_path),
        "ü": [1, True, None],
        "3": "x",
    }
