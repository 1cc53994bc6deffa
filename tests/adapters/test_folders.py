"""`metatower adapt` on pictures drawn here: odd sizes and formats, and a damaged one."""

import csv

import numpy as np
import pytest
from PIL import Image, ImageDraw

from metatower.cli import main

KINDS = ("cross", "ring", "bar")


def draw(kind: str, side: int, seed: int) -> Image.Image:
    """Dark ink on light paper, moved a little."""
    image = Image.new("L", (side, side + 9), 240)
    pen, shift = ImageDraw.Draw(image), np.random.default_rng(seed).integers(-side // 20, side // 20 + 1)
    low, high, width = side // 4 + shift, 3 * side // 4 + shift, max(2, side // 9)
    if kind == "cross":
        pen.line((low, low, high, high), fill=20, width=width)
        pen.line((low, high, high, low), fill=20, width=width)
    elif kind == "ring":
        pen.ellipse((low, low, high, high), outline=20, width=width)
    else:
        pen.line((side // 2, low, side // 2, high), fill=20, width=width)
    return image


@pytest.fixture
def folder(tmp_path):
    formats = [("png", "L"), ("jpg", "RGB"), ("gif", "P"), ("webp", "RGBA"), ("bmp", "1")]
    for i, (ending, mode) in enumerate(formats):
        for kind in KINDS:
            place = tmp_path / ("known" if i < 2 else "new") / (kind if i < 2 else "")
            place.mkdir(parents=True, exist_ok=True)
            draw(kind, 30 + 17 * i, i).convert(mode).save(place / f"{kind}-{i}.{ending}")
    (tmp_path / "known" / "bar" / "bar-1.jpg").unlink()  # shots differ
    return tmp_path


def adapt(folder, *more):
    arguments = ["adapt", "--support", str(folder / "known"), "--learner", "nearest-centroid", "--progress", "silent"]
    return main([*arguments, "--out", str(folder / "answers.csv"), *more])


def test_names_them_all_and_sets_the_damaged_aside(folder, capsys):
    (folder / "new" / "cut.png").write_bytes((folder / "new" / "ring-2.gif").read_bytes()[:40])
    assert adapt(folder, "--predict", str(folder / "new")) == 0
    said = capsys.readouterr().out
    rows = list(csv.DictReader((folder / "answers.csv").read_text().splitlines()))
    assert len(rows) == 10
    for row in rows[:-1]:
        assert row["class"] == row["file"].split("/")[-1].split("-")[0]
        chances = [float(row[f"p({kind})"]) for kind in KINDS]
        assert sum(chances) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == max(chances)
    assert rows[-1]["class"] == ""
    assert "cut.png" in rows[-1]["error"]
    assert "9 pictures named" in said
    assert "cut.png" in said
    with Image.open(folder / "answers.png") as sheet:
        assert sheet.size[0] > 500


def test_files_as_well_as_folders(folder, capsys):
    files = sorted((folder / "new").iterdir())[:2]
    assert adapt(folder, "--predict", *map(str, files)) == 0
    assert "2 pictures named" in capsys.readouterr().out


def _no_predict(folder):
    (folder / "empty").mkdir()
    return ["--predict", str(folder / "empty")]


def _nothing(folder):
    return ["--predict"]


def _one_class(folder):
    for kind in KINDS[1:]:
        for file in (folder / "known" / kind).iterdir():
            file.unlink()
        (folder / "known" / kind).rmdir()
    return ["--predict", str(folder / "new")]


def _damaged_example(folder):
    (folder / "known" / "ring" / "ring-0.png").write_bytes(b"not a picture")
    return ["--predict", str(folder / "new")]


def _answers_there(folder):
    (folder / "answers.csv").write_text("mine")
    return ["--predict", str(folder / "new")]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (_no_predict, "no pictures in"),
        (_nothing, "got none"),
        (_one_class, "at least two classes"),
        (_damaged_example, "ring-0.png is damaged"),
        (_answers_there, "is there already"),
        (lambda folder: ["--predict", str(folder / "nowhere.png")], "no picture"),
        (lambda folder: ["--predict", str(folder / "new"), "--learner", "magic"], "no learner 'magic'"),
    ],
)
def test_what_cannot_be_is_one_sentence(wrong, said, folder, capsys):
    more = wrong(folder)
    before = sorted(path.name for path in folder.iterdir())
    assert adapt(folder, *more) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == before
