"""`metatower adapt` on pictures drawn here: odd sizes and formats, and a damaged one."""

import csv
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image, ImageDraw

from metatower import Descend, sgd
from metatower.adapters.folders import Answers, show, write
from metatower.cli import main
from metatower.learners import NearestNeighbour
from metatower.nets import MLP, Supervised, cross_entropy
from metatower.recipes.learners import Found, find_learner
from metatower.recipes.maml_glyphs import MAMLGlyphs
from metatower.recipes.meta_gan_glyphs import MetaGANGlyphs
from metatower.recipes.rl2_bandits import RL2Bandits

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


def test_names_are_shown_as_they_are(folder, capsys, recwarn):
    names = ("cost_$5_$10", "$\\foo$", "字 [red]x")
    for kind, name in zip(KINDS, names, strict=True):
        (folder / "known" / kind).rename(folder / "known" / name)
    deep = folder / ("deep-" * 20) / "[red]x :cat:.png"
    deep.parent.mkdir()
    draw("ring", 40, 0).save(deep)
    assert adapt(folder, "--predict", str(deep), "--out", str(folder / "new" / "folder" / "a.csv")) == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(i for i, line in enumerate(lines) if "next best" in line)
    width = lines[header].index("class")
    column = "".join(line[:width] for line in lines[header + 1 :])
    assert str(deep).replace(" ", "") in column.replace(" ", "")
    row = next(csv.DictReader((folder / "new" / "folder" / "a.csv").read_text().splitlines()))
    assert row["class"] == names[1]
    assert not [each for each in recwarn if "missing from" in str(each.message)]


def test_what_shows_nothing_is_doubtful_and_what_cannot_be_converted_is_set_aside(folder, capsys):
    blank, lab, lost = (folder / "new" / name for name in ("blank.png", "lab.tif", "lost.tif"))
    Image.new("L", (20, 20), 90).save(blank)
    Image.new("LAB", (20, 20)).save(lab)
    Image.fromarray(np.full((20, 20), np.nan, np.float32)).save(lost)
    assert adapt(folder, "--predict", str(blank), str(lab), str(lost)) == 0
    rows = {Path(row["file"]): row for row in csv.DictReader((folder / "answers.csv").read_text().splitlines())}
    assert rows[blank]["doubtful"] == "yes"
    assert "blank" in rows[blank]["error"]
    assert "(LAB)" in rows[lab]["error"]
    assert "not finite" in rows[lost]["error"]
    assert "1 of them doubtful" in capsys.readouterr().out


def told(probabilities):
    """Answers on as many pictures of stripes."""
    files = [Path(f"{i}.png") for i in range(len(probabilities))]
    classes = tuple(f"class {i}" for i in range(probabilities.shape[1]))
    support = [(Path("known.png"), i) for i in range(len(classes))]
    pictures = np.tile(np.eye(6), (len(support) + len(files), 1, 1))
    return Answers(classes, support, files, probabilities, {}, pictures)


def test_next_best_is_another_class_in_a_tie(capsys):
    show(told(np.array([[0.5, 0.5]])))
    assert "class 1 50.0 %" in capsys.readouterr().out


def test_the_sheet_of_very_many_classes_is_small_and_the_table_comes_first(tmp_path, monkeypatch):
    answers = told(np.full((1, 3000), 1 / 3000))
    sheet = write(answers, tmp_path / "a.csv")
    with Image.open(sheet) as page:
        assert page.size[1] < 12_000
    monkeypatch.setattr("metatower.adapters.folders.sheet", None)
    with pytest.raises(TypeError):
        write(answers, tmp_path / "b.csv")
    assert (tmp_path / "b.csv").exists()


def test_more_classes_than_the_learner_tells_apart_is_one_sentence(folder, capsys, monkeypatch):
    learner = Descend(Supervised(MLP((400, 2), key=jax.random.key(0)), cross_entropy), sgd(0.1))
    monkeypatch.setattr("metatower.adapters.folders.find_learner", lambda _: Found(learner, size=20, ink=True))
    assert adapt(folder, "--predict", str(folder / "new")) == 2
    assert "tells 2 classes apart, and there are 3" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", [MAMLGlyphs(), MetaGANGlyphs(), RL2Bandits()], ids=lambda recipe: recipe.name)
def test_recipes_say_what_their_pictures_are(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("metatower.recipes.learners.recipe_of", lambda _: recipe)
    monkeypatch.setattr("metatower.recipes.learners.load", lambda _: NearestNeighbour())
    found = find_learner(tmp_path)
    # bright strokes on dark ground, as the letters of the fonts are; none where there are no pictures
    assert (found.size, found.ink) == ((None, False) if isinstance(recipe, RL2Bandits) else (recipe.size, True))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (_no_predict, "no pictures in"),
        (_nothing, "got none"),
        (_one_class, "at least two classes"),
        (_damaged_example, "ring-0.png is damaged"),
        (_answers_there, "is there already"),
        (lambda folder: ["--predict", str(folder / "nowhere.png")], "no picture"),
        (lambda folder: ["--predict", str(folder / "new"), "--out", "."], "ends in .csv"),
        (lambda folder: ["--predict", str(folder / "new"), "--out", str(folder / "a.xlsx")], "ends in .csv"),
        (lambda folder: ["--predict", str(folder / "new"), "--out", str(folder / "known/bar/bar-0.png/a.csv")], "file"),
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
