import shutil
import unicodedata

import numpy as np
import pytest
from fontTools.ttLib import TTFont

from metatower.core.errors import UserError
from metatower.tasks.glyphs import SPLITS, _own_fonts, glyphs


@pytest.fixture(scope="module")
def letters():
    return glyphs()


def test_counts_are_those_of_the_docstring(letters):
    # numbers of matplotlib's fonts of 2022 onwards; newer ones may only add
    assert len(letters) >= 2651
    assert len(letters.scripts) >= 13
    assert int(np.sum(letters.count)) >= 24000
    assert letters.table["Latin"] >= 1040
    assert next(iter(letters.table)) == "Latin"


def test_drawings_are_inked_centred_and_of_one_size(letters):
    for row in range(0, len(letters), 37):
        for image in letters.images[row, : letters.count[row]]:
            ys, xs = np.nonzero(image)
            assert image.max() == 255
            assert max(np.ptp(ys), np.ptp(xs)) + 1 in (19, 20)  # a faint edge may round to nothing
            assert abs((ys.min() + ys.max()) / 2 - 13.5) <= 1
            assert abs((xs.min() + xs.max()) / 2 - 13.5) <= 1
        assert not letters.images[row, letters.count[row] :].any()


def test_classes_are_distinct_letters_and_drawings_are_distinct(letters):
    assert len(set(letters.character.tolist())) == len(letters)
    assert all(unicodedata.category(c).startswith("L") for c in letters.character.tolist())
    for row in range(0, len(letters), 37):
        drawings = letters.images[row, : letters.count[row]]
        assert len({d.tobytes() for d in drawings}) == len(drawings)
        assert len(set(letters.font[row, : letters.count[row]].tolist())) == len(drawings)


def test_no_drawing_is_of_two_letters(letters):
    drawings = [image.tobytes() for row, n in zip(letters.images, letters.count, strict=True) for image in row[:n]]
    assert len(set(drawings)) == len(drawings)
    # K of Latin, kappa and ka; alef and its isolated form
    there = set(letters.character.tolist())
    assert {"K", "\u0627"} <= there
    assert not {"\u039a", "\u041a", "\ufe8d"} & there


def test_splits_share_no_script_and_hold_enough(letters):
    names = [name for split in SPLITS.values() for name in split]
    assert sorted(names) == sorted(set(names))
    assert set(names) <= set(letters.scripts)
    sizes = {split: len(letters.select(scripts)) for split, scripts in SPLITS.items()}
    assert sizes["test"] >= 478
    assert sizes["validation"] >= 433
    assert sizes["train"] >= 1740


def test_select_keeps_rows_together(letters):
    hebrew = letters.select(["Hebrew"], min_fonts=4)
    assert len(hebrew) > 50
    assert all("HEBREW" in unicodedata.name(c) or "SYMBOL" in unicodedata.name(c) for c in hebrew.character.tolist())
    assert hebrew.count.min() >= 4
    assert hebrew.images.shape[:2] == (len(hebrew), hebrew.count.max())
    row = letters.character.tolist().index(hebrew.character[5])
    np.testing.assert_array_equal(hebrew.images[5], letters.images[row, : hebrew.images.shape[1]])


def test_select_names_what_is_missing(letters):
    with pytest.raises(UserError, match="Klingon"):
        letters.select(["Latin", "Klingon"])
    with pytest.raises(UserError, match="99"):
        letters.select(["Hebrew"], min_fonts=99)


def test_the_cache_gives_the_same_and_draws_once(letters, monkeypatch):
    def refuse(*_):
        raise AssertionError("drawn although cached")

    monkeypatch.setattr("metatower.tasks.glyphs._draw_all", refuse)
    np.testing.assert_array_equal(glyphs().images, letters.images)


def few_fonts(monkeypatch, tmp_path):
    """Four fonts as the whole supply, and a cache of its own, to make the test quick."""
    own = [file for file in _own_fonts() if file.name.startswith("STIXGeneral")]
    assert len(own) == 4
    monkeypatch.setattr("metatower.tasks.glyphs._own_fonts", lambda: own)
    monkeypatch.setattr("metatower.tasks.glyphs._letters", lambda _: {ord(c) for c in "aλж"})
    monkeypatch.setenv("METATOWER_CACHE", str(tmp_path / "cache"))


def test_own_fonts_add_drawings(monkeypatch, tmp_path):
    added = next(file for file in _own_fonts() if file.name == "DejaVuSerif.ttf")
    few_fonts(monkeypatch, tmp_path)
    before = glyphs()
    folder = tmp_path / "fonts" / "below"
    folder.mkdir(parents=True)
    shutil.copy(added, folder / "mine.ttf")
    (folder / "notes.txt").write_text("not a font, and not taken for one")
    after = glyphs(tmp_path / "fonts")
    assert before.count.tolist() == [4, 4, 4]
    assert after.count.tolist() == [5, 5, 5]
    assert "mine.ttf" in after.fonts
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_font_without_small_letters_takes_them_from_no_other(monkeypatch, tmp_path):
    few_fonts(monkeypatch, tmp_path)
    monkeypatch.setattr("metatower.tasks.glyphs._letters", lambda _: {ord(c) for c in "aA"})
    folder = tmp_path / "fonts"
    folder.mkdir()
    file = next(file for file in _own_fonts() if file.name == "STIXGeneral.ttf")
    with TTFont(file) as font:
        for table in font["cmap"].tables:
            if table.isUnicode():
                table.cmap[ord("a")] = table.cmap[ord("A")]
        font.save(folder / "capitals.ttf")
    found = glyphs(folder)
    # its capital is that of the font it was made of, and its small letter the same drawing once more
    assert dict(zip(found.character.tolist(), found.count.tolist(), strict=True)) == {"A": 4, "a": 4}


def test_bad_font_folders_are_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        glyphs(tmp_path / "nowhere")
    with pytest.raises(UserError, match="found none"):
        glyphs(tmp_path)
    (tmp_path / "broken.ttf").write_bytes(b"not a font at all")
    with pytest.raises(UserError, match=r"broken\.ttf"):
        glyphs(tmp_path)


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7])
def test_a_truncated_font_is_one_clear_error(tmp_path, keep):
    whole = next(file for file in _own_fonts() if file.name == "DejaVuSerif.ttf").read_bytes()
    (tmp_path / "cut.ttf").write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(UserError, match=r"cut\.ttf"):
        glyphs(tmp_path)


def test_an_unreadable_folder_is_one_clear_error(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(UserError, match=r"cannot be read: Permission denied"):
        glyphs(tmp_path)
