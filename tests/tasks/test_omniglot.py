import hashlib
import io
import os
import zipfile
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from PIL import Image, ImageDraw

from metatower.core.errors import UserError
from metatower.tasks import omniglot as module
from metatower.tasks.arrays import resized
from metatower.tasks.omniglot import VALIDATION_ALPHABETS, alphabet_family, omniglot, read_omniglot
from metatower.tasks.one_shot import OneShotRuns, one_shot_runs
from metatower.tasks.pooled import Pooled

BACKGROUND = {"Hebrew": 3, "Latin": 4}
EVALUATION = {"Angelic": 2, "Gurmukhi": 45, "ULOG": 3}


drawn = eqx.filter_jit(lambda tasks, key: tasks.sample(key))


def drawing(character, drawer):
    """Black on white, 1 bit, 105 pixels, as the official ones are."""
    image = Image.new("1", (105, 105), 1)
    ImageDraw.Draw(image).rectangle((10, 10, 10 + 2 * character, 30 + drawer), fill=0)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def zips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zips")
    for name, alphabets in (("images_background", BACKGROUND), ("images_evaluation", EVALUATION)):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for alphabet, characters in alphabets.items():
                for character in range(1, characters + 1):
                    for drawer in range(1, 21):
                        path = f"{name}/{alphabet}/character{character:02}/{character:04}_{drawer:02}.png"
                        archive.writestr(path, drawing(character, drawer))
    return folder


@pytest.fixture
def official(zips, monkeypatch, tmp_path):
    """The small files as if they were the official ones, and a cache of its own."""
    sums = {name: "md5:" + hashlib.md5((zips / name).read_bytes()).hexdigest() for name in module.ZIPS}
    monkeypatch.setattr(module, "ZIPS", sums)
    monkeypatch.setenv("METATOWER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METATOWER_DATA", str(zips))
    return zips


def test_zips_in_the_data_folder_are_read(official):
    data = read_omniglot()
    assert data.names == ("Angelic", "Gurmukhi", "Hebrew", "Latin", "ULOG")
    assert data.images.shape == (57, 20, 28, 28)
    assert data.images.max() == 255  # ink
    assert data.images[:, :, -1, -1].max() == 0  # paper
    assert data.background.sum() == 7
    latin = data.images[data.alphabet == 3]
    assert latin[3].astype(int).sum() > latin[0].astype(int).sum()  # characters in order, wider and wider
    assert data.images[0, 19].astype(int).sum() > data.images[0, 0].astype(int).sum()  # drawers too


def test_it_is_unpacked_once(official, monkeypatch):
    first = read_omniglot()
    monkeypatch.setattr(module, "_from_zips", lambda _: pytest.fail("unpacked again"))
    np.testing.assert_array_equal(read_omniglot().images, first.images)


def test_splits_are_disjoint_and_as_published(official):
    data = read_omniglot()
    for scheme in module.SCHEMES:
        members = [data.members(split, scheme) for split in ("train", "validation", "test")]
        assert (np.sum(members, axis=0) == 1).all()
    gurmukhi = data.names.index("Gurmukhi")
    test = data.members("test", "vinyals")
    assert data.number[test & (data.alphabet == gurmukhi)].tolist() == [42, 43, 44, 45]
    assert not test[data.alphabet == data.names.index("Angelic")].any()
    assert data.members("test", "alphabets")[data.alphabet == data.names.index("Angelic")].all()


def test_tasks_come_out(official):
    task = drawn(omniglot("test", ways=3, shots=2, queries=4), jax.random.key(0))
    assert task.query.x.shape == (12, 28, 28)
    assert omniglot("test", ways=3).classes == 4 * 7
    assert omniglot("test", "alphabets", rotations=False, ways=3).classes == 50


def test_wrong_splits_are_one_clear_error(official):
    with pytest.raises(UserError, match="train, validation, test; got 'dev'"):
        omniglot("dev")
    with pytest.raises(UserError, match="vinyals, alphabets; got 'lake'"):
        omniglot("train", "lake")
    with pytest.raises(UserError, match="at most 28 ways"):
        omniglot("test", ways=29)


def test_other_files_under_the_official_names_are_refused(zips, monkeypatch, tmp_path):
    monkeypatch.setenv("METATOWER_DATA", str(zips))
    monkeypatch.setenv("METATOWER_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"not the official images_background\.zip"):
        read_omniglot()


def test_fetched_with_the_published_sums(official, monkeypatch):
    asked = {}

    def retrieve(url, known_hash, fname, path):
        asked[url] = known_hash
        return str(official / fname)

    monkeypatch.delenv("METATOWER_DATA")
    monkeypatch.setattr(module.pooch, "retrieve", retrieve)
    assert len(read_omniglot().images) == 57
    assert asked == {module.SOURCE + name: known for name, known in module.ZIPS.items()}


def test_no_network_is_one_clear_error(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.delenv("METATOWER_DATA", raising=False)
    monkeypatch.setenv("METATOWER_CACHE", str(tmp_path))
    monkeypatch.setattr(module.pooch, "retrieve", offline)
    with pytest.raises(UserError, match=r"Could not fetch.*no route.*METATOWER_DATA"):
        omniglot()


def test_a_fetch_that_fails_is_told_without_its_wrappings(monkeypatch, tmp_path):
    class WrappedError(Exception):
        reason = ConnectionError("HTTPSConnection(host='h', port=443): Failed to resolve 'h' (Name not known)")

    def offline(*_, **__):
        raise OSError(WrappedError("HTTPSConnectionPool(host='h'): Max retries exceeded with url: /x"))

    monkeypatch.delenv("METATOWER_DATA", raising=False)
    monkeypatch.setenv("METATOWER_CACHE", str(tmp_path))
    monkeypatch.setattr(module.pooch, "retrieve", offline)
    with pytest.raises(UserError, match=r"zip: Failed to resolve 'h' \(Name not known\)\. Fetch"):
        omniglot()


def test_a_folder_that_is_not_there_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("METATOWER_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"nowhere, which is not a folder"):
        omniglot()


def test_a_damaged_npz_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("METATOWER_DATA", str(tmp_path))
    for contents in (b"not an archive", b"PK\x03\x04 torn"):
        (tmp_path / "omniglot.npz").write_bytes(contents)
        with pytest.raises(UserError, match=r"omniglot\.npz"):
            omniglot()


@pytest.fixture
def real(monkeypatch):
    path = Path(os.environ.get("METATOWER_DATA", "")) / "omniglot.npz"
    if not path.is_file():
        pytest.skip("METATOWER_DATA names no folder with omniglot.npz")
    return path


@pytest.mark.data
def test_the_vinyals_split_is_the_published_one(real):
    data = read_omniglot()
    with np.load(real) as file:
        names, alphabet, number = file["alphabet_names"], file["char_alphabet"], file["char_number"]
        published = {
            (names[a], n): split for a, n, split in zip(alphabet, number, file["char_split_vinyals"], strict=True)
        }
    for split, called, size in (("train", "train", 1028), ("validation", "val", 172), ("test", "test", 423)):
        members = data.members(split, "vinyals")
        assert members.sum() == size
        assert {published[data.names[data.alphabet[i]], data.number[i]] for i in np.flatnonzero(members)} == {called}


@pytest.mark.data
def test_the_alphabet_split_is_the_official_one(real):
    data = read_omniglot()
    assert data.members("test", "alphabets").sum() == 659
    assert data.members("train", "alphabets").sum() == 964 - 172
    assert set(VALIDATION_ALPHABETS) <= set(data.names)
    # what the card of prototypical-omniglot says of the official one-shot runs
    assert (data.members("test", "alphabets") & data.members("train", "vinyals")).sum() == 236
    assert len(one_shot_runs("test", "vinyals")[1]) == 12


@pytest.mark.data
def test_alphabets_times_transforms(real):
    family = alphabet_family("test", queries=5, size=20)
    task = drawn(Pooled(family), jax.random.key(0))
    assert task.query.x.shape == (25, 20, 20)
    assert omniglot("train").classes == 4112


def test_one_shot_runs_are_of_one_alphabet_and_two_people():
    count, people = np.array([5, 3]), 4
    shades = np.arange(8 * people, dtype=np.uint8).reshape(8, people, 1, 1)  # each picture tells whose and what it is
    runs = OneShotRuns(shades, np.array([0, 5]), count, ways=3)
    alphabets = set()
    for seed in range(20):
        task = drawn(runs, jax.random.key(seed))
        support, query = (np.rint(255 * side.x[:, 0, 0]).astype(int) for side in (task.support, task.query))
        np.testing.assert_array_equal(support // people, query // people)  # the same characters in the same order
        np.testing.assert_array_equal(task.query.y, range(3))
        assert len(set(support // people)) == 3
        assert len(set(support % people)) == len(set(query % people)) == 1
        assert support[0] % people != query[0] % people
        alphabets |= {tuple(set(support // people < 5))}
    assert alphabets == {(True,), (False,)}


def test_one_shot_runs_take_the_alphabets_that_are_large_enough(official):
    runs, alphabets = one_shot_runs(ways=3, size=14)
    assert alphabets == ["Gurmukhi", "ULOG"]  # of 45 and 3 characters; Angelic has two
    assert runs.images.shape == (50, 20, 14, 14)
    data = read_omniglot()
    of_ulog = data.images[(data.alphabet == data.names.index("ULOG")) & ~data.background]
    np.testing.assert_array_equal(runs.images[runs.first[1] :][: runs.count[1]], resized(of_ulog, 14))
    assert one_shot_runs(scheme="vinyals", ways=4)[1] == ["Gurmukhi"]
    with pytest.raises(UserError, match="2 to 45 ways"):
        one_shot_runs(ways=46)
