"""The weights that come with the package."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metatower.adapters.scikit_learn import FewShotClassifier
from metatower.cli import main
from metatower.evaluation.episodes import evaluate
from metatower.recipes.learners import SHIPPED, WEIGHTS, find_learner, learners
from metatower.tasks.glyphs import glyphs
from metatower.tasks.omniglot import omniglot

THERE = sorted(path.name for path in WEIGHTS.iterdir() if path.is_dir())


def test_every_short_name_stands_for_one():
    assert THERE
    assert set(SHIPPED.values()) <= set(THERE)
    assert {*SHIPPED, *THERE} <= set(learners())


@pytest.mark.parametrize("name", THERE)
def test_has_a_card_with_licence_data_and_numbers(name):
    card = (WEIGHTS / name / "card.md").read_text()
    for word in ("Licence", "Data", "Protocol", "Accuracy", "Command"):
        assert f"**{word}**" in card
    assert json.loads((WEIGHTS / name / "config.json").read_text())["options"]["on"] in card.lower()


def test_there_is_one_trained_on_handwriting_and_one_on_print():
    assert {"prototypical-omniglot", "prototypical-glyphs"} <= set(THERE)


def test_the_help_of_adapt_names_every_learner(capsys):
    assert main(["adapt", "--help"]) == 0
    words = capsys.readouterr().out.replace(",", " ").replace(")", " ").replace(".", " ").replace(";", " ").split()
    assert set(learners()) <= set(words)


@pytest.mark.parametrize("name", THERE)
def test_is_small_and_what_its_record_says(name):
    folder = WEIGHTS / name
    assert sum(file.stat().st_size for file in folder.iterdir()) < 600_000
    found = find_learner(name)
    assert found.size == json.loads((folder / "config.json").read_text())["options"]["size"]
    assert found.ink
    assert found.folder == folder


@pytest.mark.parametrize("name", THERE)
def test_adapts_by_name_on_the_command_line(name, tmp_path, capsys):
    letters = glyphs().select(("Armenian",), min_fonts=6)
    for i, kind in enumerate("abc"):
        for place, drawings in (("known", (0, 1)), ("new", (2, 3, 4))):
            (tmp_path / "known" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "new").mkdir(exist_ok=True)
            for j in drawings:
                paper = Image.fromarray(255 - letters.images[10 * i, j]).resize((60, 60))
                paper.save(tmp_path / place / (kind if place == "known" else "") / f"{kind}-{j}.png")
    asked = ["adapt", "--support", str(tmp_path / "known"), "--predict", str(tmp_path / "new"), "--learner", name]
    assert main([*asked, "--out", str(tmp_path / "out.csv"), "--progress", "silent"]) == 0
    assert "9 pictures named" in capsys.readouterr().out
    answers = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert sum(Path(each["file"]).name.startswith(each["class"]) for each in answers) >= 8


@pytest.mark.parametrize("name", THERE)
def test_tells_letters_apart_that_it_has_never_seen(name):
    # letters of scripts that are in no training split here, drawn by several fonts
    letters = glyphs().select(("Armenian", "Georgian"), min_fonts=4)
    chosen = np.random.default_rng(0).choice(len(letters), 10, replace=False)
    pictures, classes = letters.images[chosen, :4], np.arange(10)
    model = FewShotClassifier(name).fit(list(pictures[:, 0]), classes)
    right = np.concatenate([model.predict(list(pictures[:, i])) == classes for i in (1, 2, 3)])
    assert right.mean() > 0.7


LEAST = {"prototypical-omniglot": 0.96, "prototypical-glyphs": 0.62}
"""Accuracy on Omniglot's test characters that is kept; nearest neighbour on pixels has 0.50."""


@pytest.mark.data
@pytest.mark.parametrize("name", LEAST)
def test_keeps_its_accuracy_on_omniglots_test_characters(name):
    if not (Path(os.environ.get("METATOWER_DATA", "")) / "omniglot.npz").is_file():
        pytest.skip("METATOWER_DATA names no folder with omniglot.npz")
    tasks = omniglot("test", ways=5, shots=1, queries=5)
    scores = evaluate(find_learner(name).learner, tasks, episodes=100, seed=3)
    assert scores["accuracy"].mean() > LEAST[name]
