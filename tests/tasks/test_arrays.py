from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from PIL import Image

from metatower.core.errors import UserError
from metatower.tasks.arrays import from_arrays, from_folder, read_folder, resized, squeezed


def labelled(classes=6, each=4):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(classes), each))
    images = np.zeros((len(labels), 3, 3), np.uint8)
    images[:, 1, 1] = labels * 10
    images[:, 0, 0] = np.arange(len(labels))
    return images, labels


def test_every_picture_lands_in_its_class_once():
    images, labels = labelled()
    episodes = from_arrays(images, labels, queries=2)
    pool = np.asarray(episodes.images)
    assert pool.shape == (6, 4, 3, 3)
    assert (pool[:, :, 1, 1] == 10 * np.arange(6)[:, None]).all()
    assert sorted(pool[:, :, 0, 0].reshape(-1).tolist()) == list(range(24))


def test_ragged_classes_and_labels_of_any_kind():
    images, labels = labelled()
    keep = np.arange(len(labels))[~((labels == 2) & (np.arange(len(labels)) > 12))]
    names = np.array([f"class {label}" for label in labels])
    episodes = from_arrays(images[keep], names[keep], queries=1, ways=2)
    assert episodes.count.tolist()[2] == int(np.sum(labels[keep] == 2))
    assert sum(episodes.count.tolist()) == len(keep)


def test_kinds_of_numbers():
    images, labels = labelled()
    bytes_ = from_arrays(images, labels, queries=2).images
    np.testing.assert_array_equal(from_arrays(images / 255, labels, queries=2).images, bytes_)
    assert int(from_arrays(images > 0, labels, queries=2).images.max()) == 255
    for bad in (images.astype(np.int64), images * 1.0, np.where(images > 0, np.nan, 0.0)):
        with pytest.raises(UserError, match="uint8"):
            from_arrays(bad, labels, queries=2)


def test_bad_arrays_are_one_clear_error():
    images, labels = labelled()
    with pytest.raises(UserError, match=r"\(24, 3, 3\) and \(23,\)"):
        from_arrays(images, labels[1:])
    few = labels != 3
    few[np.flatnonzero(labels == 3)[:2]] = True
    with pytest.raises(UserError, match=r"'3' has 2 pictures.*need 4"):
        from_arrays(images[few], labels[few], queries=3)
    with pytest.raises(UserError, match="at most 6 ways"):
        from_arrays(images, labels, ways=7, queries=1)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def folder(tmp_path):
    for name, shade in (("dark", 20), ("light", 220), ("middle", 120)):
        save(tmp_path / name / "l.png", Image.new("L", (40, 30), shade))
        save(tmp_path / name / "rgb.jpg", Image.new("RGB", (9, 50), (shade,) * 3))
        save(tmp_path / name / "rgba.png", Image.new("RGBA", (28, 28), (shade,) * 3 + (255,)))
        save(tmp_path / name / "deep.png", Image.fromarray(np.full((20, 20), shade * 257, np.uint16)))
        save(tmp_path / name / "palette.gif", Image.new("L", (5, 5), shade).convert("P"))
        (tmp_path / name / "notes.txt").write_text("passed over")
        (tmp_path / name / ".hidden.png").write_text("passed over")
    (tmp_path / "README.md").write_text("passed over")
    return tmp_path


def test_a_folder_of_any_modes_and_sizes(folder):
    images, labels, names = read_folder(folder, size=14)
    assert names == ["dark", "light", "middle"]
    assert images.shape == (15, 14, 14)
    for name, shade in (("dark", 20), ("light", 220), ("middle", 120)):
        np.testing.assert_allclose(images[labels == names.index(name)].astype(int), shade, atol=2)
    episodes = from_folder(folder, size=14, ways=3, queries=2)
    task = eqx.filter_jit(lambda e, key: e.sample(key))(episodes, jax.random.key(0))
    assert task.query.x.shape == (6, 14, 14)


def test_colours_if_asked_for_and_see_through_is_white(folder):
    save(folder / "dark" / "clear.png", Image.new("RGBA", (8, 8), (255, 0, 0, 0)))
    save(folder / "dark" / "red.png", Image.new("RGB", (8, 8), (255, 0, 0)))
    images, _, _ = read_folder(folder, size=8, grey=False)
    assert images.shape[1:] == (8, 8, 3)
    assert images[0].min() == 255  # clear.png comes first
    assert [255, 0, 0] in images[:, 0, 0].tolist()


def test_bad_folders_are_one_clear_error(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(UserError, match="no sub-folder"):
        from_folder(empty)
    with pytest.raises(UserError, match="nowhere"):
        from_folder(empty / "nowhere")
    with pytest.raises(UserError, match="'dark' has 5 pictures"):
        from_folder(folder, ways=2, queries=5)
    (folder / "nothing").mkdir()
    with pytest.raises(UserError, match="'nothing' has no pictures"):
        from_folder(folder)


@pytest.mark.parametrize("contents", [b"", b"not a picture", "half"])
def test_a_damaged_picture_is_named(folder, contents):
    file = folder / "light" / "l.png"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    noise.save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if contents == "half" else contents)
    with pytest.raises(UserError, match=r"l\.png is damaged"):
        from_folder(folder)


def test_an_unreadable_class_is_one_clear_error(folder, monkeypatch):
    whole = Path.iterdir

    def refuse(self):
        if self.name == "dark":
            raise PermissionError(13, "Permission denied", str(self))
        return whole(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=r"dark cannot be read: Permission denied"):
        from_folder(folder)


def test_resizing_averages():
    images = np.zeros((2, 3, 4, 4), np.uint8)
    images[1, 2, :2, :2] = [[0, 200], [100, 100]]
    small = resized(images, 2)
    assert small.shape == (2, 3, 2, 2)
    assert small[1, 2].tolist() == [[100, 0], [0, 0]]
    assert resized(images, 4) is images


@pytest.mark.parametrize("most", [1.0, 255.0])
def test_shades_that_are_no_integers(most):
    shades = np.linspace(0, most, 16, dtype=np.float32).reshape(4, 4)
    found = squeezed(Image.fromarray(shades), 4, grey=True)
    assert found.ravel().tolist() == list(range(0, 256, 17))
