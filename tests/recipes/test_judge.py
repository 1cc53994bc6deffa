"""`metatower evaluate` on other tasks, with untrained models of storeys 0 and 1."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from metatower import Descend, adam, lift, recipes, sgd
from metatower.cli import main
from metatower.evaluation.episodes import Fixed
from metatower.nets import MLP, Supervised, cross_entropy
from metatower.recipes import Recipe
from metatower.recipes.judge import _examples
from metatower.recipes.run import describe
from metatower.tasks.episodes import Episodes
from metatower.training.files import write_json
from metatower.training.store import save_arrays

pytestmark = pytest.mark.usefixtures("quick_compile")
SIZE = 14


def pool(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (6, 5, SIZE, SIZE), dtype=np.uint8)


@dataclass(frozen=True)
class Pictures(Recipe):
    """For these tests."""

    name: ClassVar[str] = "test-pictures"
    ways: int = 3
    shots: int = 1
    queries: int = 2

    def learner(self):
        net = MLP((SIZE * SIZE, 8, self.ways), key=jax.random.key(self.seed))
        return lift(Descend(Supervised(net, cross_entropy), sgd(0.1)), adam(1e-3), batch=2, steps=2)

    def data(self):
        return Episodes(pool(0), np.full(6, 5), self.ways, self.shots, self.queries)

    def artefact(self, learner, state):
        return learner.result(state).learner

    def held_out(self):
        return self.data()

    def conclude(self, artefact, folder, show):
        raise AssertionError


@dataclass(frozen=True)
class Above(Pictures):
    """For these tests, one storey up."""

    name: ClassVar[str] = "test-above"

    def learner(self):
        return lift(super().learner(), adam(1e-3))

    def held_out(self):
        return Fixed(self.data(), self.data())


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A function that writes the untrained model of a recipe."""

    def made(recipe: Recipe) -> str:
        monkeypatch.setitem(recipes.RECIPES, recipe.name, type(recipe))
        folder = tmp_path / recipe.name
        folder.mkdir()
        learner = recipe.learner()
        artefact = recipe.artefact(learner, learner.start(key=jax.random.key(0)))
        write_json(folder / "config.json", describe(recipe))
        save_arrays(folder / "model.safetensors", artefact, describe(recipe), record="config.json")
        return str(folder)

    return made


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Six classes of five pictures, of all sorts."""
    folder = tmp_path / "pictures"
    for number in range(6):
        (folder / f"class {number}").mkdir(parents=True)
        for i in range(5):
            colours = np.random.default_rng(10 * number + i).integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)
            picture = Image.fromarray(colours).convert(("RGB", "L", "RGBA", "1", "P")[i])
            picture.save(folder / f"class {number}" / f"{i}.{'png' if i else 'jpg'}")
    return folder


def evaluated(capsys, *arguments: str) -> dict:
    assert main(["evaluate", *arguments, "--json", "--progress", "silent", "--episodes", "4"]) == 0
    return json.loads(capsys.readouterr().out)


def complaint(capsys, *arguments: str) -> str:
    assert main(["evaluate", *arguments, "--progress", "silent", "--episodes", "4"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    return err


def test_held_out_before_and_after(model, capsys):
    found = evaluated(capsys, model(Pictures()))
    assert found["tasks"] == "held-out"
    assert [(row["name"], row["metric"]) for row in found["results"]] == [
        (name, metric) for name in ("after 1 step", "before adaptation") for metric in ("accuracy", "loss")
    ]
    assert {(row["n"], row["unit"]) for row in found["results"]} == {(4, "task")}
    assert [row["against"] for row in found["paired"]] == ["before adaptation"] * 2


def test_a_model_of_storey_one_is_run_and_then_judged(model, capsys):
    found = evaluated(capsys, model(Above()))
    assert {row["name"] for row in found["results"]} == {"after 2 meta-steps", "before adaptation"}
    assert {row["unit"] for row in found["results"]} == {"distribution"}
    assert "2 meta-steps of 2 tasks" in " ".join(found["notes"])


def test_a_table(model, capsys):
    assert main(["evaluate", model(Pictures()), "--progress", "silent", "--episodes", "4"]) == 0
    out = capsys.readouterr().out
    assert "accuracy (%)" in out
    assert "4 tasks" in out
    assert "The recipe's own held-out tasks." in out


def test_ones_own_pictures(model, pictures, capsys):
    found = evaluated(capsys, model(Pictures()), "--tasks", f"folder:{pictures}", "--shots", "2", "--ways", "2")
    assert "30 pictures of 6 classes" in found["notes"][0]
    above = evaluated(capsys, model(Above()), "--tasks", f"folder:{pictures}")
    assert {row["unit"] for row in above["results"]} == {"run"}
    assert "half of the classes" in above["notes"][0]


def test_what_a_model_was_trained_on_is_not_needed_to_judge_it_on_ones_own_pictures(pictures, capsys, monkeypatch):
    def offline(*_, **__):
        raise AssertionError("Omniglot would be downloaded")

    monkeypatch.setattr("metatower.recipes.few_shot.omniglot", offline)
    weights = str(Path(recipes.__file__).parents[1] / "weights" / "prototypical-omniglot")
    found = evaluated(capsys, weights, "--tasks", f"folder:{pictures}", "--shots", "2")
    assert "30 pictures of 6 classes" in found["notes"][0]
    assert "nowhere" in complaint(capsys, weights, "--tasks", "folder:nowhere")
    # nor the fonts of a model of letters
    for recipe in (recipes.MAMLGlyphs, recipes.RECIPES["optimised-maml"]):
        asked = recipe(fonts=Path("/no/longer/there"))
        sizes = [jax.tree.map(jnp.shape, _examples(tasks)[0].x) for tasks in (asked.shaped(), recipe().held_out())]
        assert sizes[0] == sizes[1]


def test_glyphs_are_made_to_fit(model, capsys):
    found = evaluated(capsys, model(Pictures()), "--tasks", "glyphs")
    assert "Hebrew" in found["notes"][0]


@pytest.mark.parametrize("shots", ["1", "5"])
def test_of_letters_as_many_are_judged_as_there_are(shots, capsys):
    weights = str(Path(recipes.__file__).parents[1] / "weights" / "prototypical-omniglot")
    found = evaluated(capsys, weights, "--tasks", "glyphs", "--shots", shots)
    assert "Hebrew" in found["notes"][0]


@pytest.mark.data
@pytest.mark.parametrize("recipe", [Pictures(), Above()])
@pytest.mark.parametrize("shots", ["1", "10"])  # of twenty drawings of a letter ten are left to be judged on
def test_omniglot(recipe, shots, model, capsys):
    if not (Path(os.environ.get("METATOWER_DATA", "")) / "omniglot.npz").is_file():
        pytest.skip("METATOWER_DATA names no folder with omniglot.npz")
    found = evaluated(capsys, model(recipe), "--tasks", "omniglot", "--shots", shots)
    assert "20 evaluation alphabets" in found["notes"][0]


@pytest.mark.data
@pytest.mark.parametrize(("name", "ways"), [("of outputs", 3), ("of features", 20)])
def test_one_shot_runs(name, ways, model, capsys):
    if not (Path(os.environ.get("METATOWER_DATA", "")) / "omniglot.npz").is_file():
        pytest.skip("METATOWER_DATA names no folder with omniglot.npz")
    trained = model(Pictures()) if name == "of outputs" else "prototypical-omniglot"
    found = evaluated(capsys, trained, "--tasks", "omniglot-one-shot")
    assert f"Omniglot, {ways} characters of one alphabet" in found["notes"][0]
    assert "one picture of each class" in complaint(capsys, trained, "--tasks", "omniglot-one-shot", "--shots", "2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tasks", "omniglott"], "There are no tasks 'omniglott'"),
        (["--tasks", "folder:nowhere"], "nowhere"),
        (["--tasks", "sinusoids"], "tells classes apart"),
        (["--ways", "9"], "tells 3 classes apart, and 9 ways were asked for"),
        (["--ways", "1"], "at least 2 ways"),
        (["--shots", "0"], "--shots of at least 1"),
        (["--shots", "50"], "Class 0 has 5 pictures"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_what_does_not_fit_is_one_sentence(arguments, words, model, capsys):
    assert words in complaint(capsys, model(Pictures()), *arguments)


def test_folders_that_do_not_do(model, pictures, capsys):
    folder = model(Pictures())
    where = ["--tasks", f"folder:{pictures}"]
    assert "'class 0' has 5 pictures, and shots and queries, 5 + 1" in complaint(capsys, folder, *where, "--shots", "5")
    (pictures / "class 3" / "1.png").write_bytes(b"\x89PNG no more")
    assert "class 3/1.png is damaged" in complaint(capsys, folder, *where)
    (pictures / "class 3" / "1.png").unlink()
    for picture in (pictures / "class 4").iterdir():
        picture.unlink()
    assert "Class 'class 4' has no pictures" in complaint(capsys, folder, *where)


def test_too_few_classes_for_two_parts(model, pictures, capsys):
    for picture in (pictures / "class 5").iterdir():
        picture.unlink()
    (pictures / "class 5").rmdir()
    words = complaint(capsys, model(Above()), "--tasks", f"folder:{pictures}")
    assert "3 ways need at least 6 classes" in words


def test_a_model_of_functions_takes_no_pictures(tmp_path, model, pictures, capsys):
    folder = model(recipes.MAMLSinusoid(hidden=(8,), shots=5))
    assert "not square pictures" in complaint(capsys, folder, "--tasks", "glyphs")
    assert "not square pictures" in complaint(capsys, folder, "--tasks", f"folder:{pictures}")
    assert "predicts numbers" in complaint(capsys, folder, "--ways", "2")
    found = evaluated(capsys, folder, "--tasks", "sinusoids", "--shots", "3")
    assert {row["metric"] for row in found["results"]} == {"loss"}
