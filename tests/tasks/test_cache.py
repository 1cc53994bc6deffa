import numpy as np
import pytest

from metatower.tasks.cache import cached, write_arrays

ARRAYS = {"a": np.arange(6, dtype=np.uint8).reshape(2, 3), "names": np.array(["x", "yz"]), "none": np.zeros((0, 2))}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METATOWER_CACHE", str(tmp_path))
    return tmp_path


def count_builds(arrays=ARRAYS):
    built = []

    def build():
        built.append(1)
        return arrays

    return build, built


def test_builds_once_and_reads_back_the_same(cache):
    build, built = count_builds()
    cached("name", build)
    again = cached("name", build)
    assert len(built) == 1
    assert again.keys() == ARRAYS.keys()
    for name in ARRAYS:
        np.testing.assert_array_equal(again[name], ARRAYS[name])
        assert again[name].dtype == ARRAYS[name].dtype
    assert [file.name for file in cache.iterdir()] == ["name.npz"]


@pytest.mark.parametrize("at", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_a_truncated_file_is_built_again(cache, at):
    build, built = count_builds()
    cached("name", build)
    whole = (cache / "name.npz").read_bytes()
    (cache / "name.npz").write_bytes(whole[: int(len(whole) * at)])
    cached("name", build)
    cached("name", build)
    assert len(built) == 2


def test_altered_contents_are_built_again(cache):
    build, built = count_builds()
    cached("name", build)
    with np.load(cache / "name.npz") as file:
        forged = dict(file)
    forged["a"] = forged["a"] + 1
    np.savez(cache / "name.npz", **forged)
    np.testing.assert_array_equal(cached("name", build)["a"], ARRAYS["a"])
    assert len(built) == 2


def test_flipped_bytes_never_reach_the_caller(cache):
    build, _ = count_builds()
    cached("name", build)
    whole = (cache / "name.npz").read_bytes()
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        (cache / "name.npz").write_bytes(damaged)
        np.testing.assert_array_equal(cached("name", build)["a"], ARRAYS["a"])


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METATOWER_CACHE", str(tmp_path / "file" / "below"))
    build, built = count_builds()
    np.testing.assert_array_equal(cached("name", build)["a"], ARRAYS["a"])
    assert len(built) == 1
    assert "METATOWER_CACHE" in caplog.text


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        write_arrays(tmp_path / "name.npz", ARRAYS)
    assert list(tmp_path.iterdir()) == []
