"""The weights that come with the package."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from metatower.adapters.scikit_learn import FewShotClassifier
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


@pytest.mark.parametrize("name", THERE)
def test_tells_letters_apart_that_it_has_never_seen(name):
    # letters of scripts that are in no training split here, drawn by several fonts
    letters = glyphs().select(("Armenian", "Georgian"), min_fonts=4)
    chosen = np.random.default_rng(0).choice(len(letters), 10, replace=False)
    pictures, classes = letters.images[chosen, :4], np.arange(10)
    model = FewShotClassifier(name).fit(list(pictures[:, 0]), classes)
    right = np.concatenate([model.predict(list(pictures[:, i])) == classes for i in (1, 2, 3)])
    assert right.mean() > 0.7


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in THERE if name.endswith("omniglot")])
def test_keeps_its_accuracy_on_omniglots_test_characters(name):
    if not (Path(os.environ.get("METATOWER_DATA", "")) / "omniglot.npz").is_file():
        pytest.skip("METATOWER_DATA names no folder with omniglot.npz")
    tasks = omniglot("test", ways=5, shots=1, queries=5)
    scores = evaluate(find_learner(name).learner, tasks, episodes=100, seed=3)
    assert scores["accuracy"].mean() > 0.96
