"""What is kept of a run: the command that makes it, with the options that are not the default."""

import json

import pytest
from benchmarks.publish import command, published

from metatower.recipes import RECIPES, find
from metatower.recipes.run import execute
from metatower.training.progress import Silent


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_of_the_defaults_is_short(name):
    assert command(name, find(name)().options()) == f"metatower train {name}"


def test_the_command_names_what_differs():
    options = find("optimised-maml")(steps=3, classes=("ink", "size"), weight_rate=1e-3).options()
    assert command("optimised-maml", options) == (
        "metatower train optimised-maml --steps 3 --weight-rate 0.001 --classes ink size"
    )


@pytest.mark.usefixtures("quick_compile")
def test_a_finished_run_is_kept_with_its_results_and_notes(tmp_path):
    recipe = find("maml-sinusoid")(steps=2, episodes=2, hidden=(3,))
    summary = execute(recipe, tmp_path / "run", Silent())
    kept = json.loads(json.dumps(published(tmp_path / "run")))
    assert kept["results"] == json.loads(json.dumps(summary["results"]))
    assert kept["command"].startswith("metatower train maml-sinusoid --steps 2")
    assert kept["notes"]
    assert kept["cores"] >= 1
    assert kept["options"]["episodes"] == 2
