"""Options that cannot be are refused in one sentence, wherever they come from."""

import dataclasses
import json
from pathlib import Path

import pytest

from metatower.cli import main
from metatower.core.errors import UserError
from metatower.recipes import RECIPES, find


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("optimised-maml", {"hidden": ["a"]}),
        ("optimised-maml", {"hidden": None}),
        ("optimised-maml", {"hidden": 40}),
        ("optimised-maml", {"hidden": [40, 0]}),
        ("optimised-maml", {"hidden": []}),
        ("optimised-maml", {"size": "14"}),
        ("optimised-maml", {"size": 1e9}),
        ("optimised-maml", {"seed": "x"}),
        ("optimised-maml", {"seed": 2**32}),
        ("optimised-maml", {"seed": -1}),
        ("optimised-maml", {"classes": [1]}),
        ("optimised-maml", {"inner_rate": "q"}),
        ("optimised-maml", {"judged": True}),
        ("optimised-maml", {"steps": 1.5}),
        ("optimised-maml", {"nuisance": float("nan")}),
        ("optimised-maml", {"weight_rate": float("inf")}),
        ("maml-glyphs", {"hidden": [-3]}),
        ("maml-glyphs", {"fonts": 3}),
        ("maml-sinusoid", {"rate": -0.1}),
        ("prototypical", {"on": "imagenet"}),
        ("prototypical", {"train_ways": 0}),
        ("maml", {"inner_rate": 0.0}),
    ],
)
def test_values_from_a_changed_file(recipe, options):
    recipe = find(recipe)
    with pytest.raises(UserError, match=next(iter(options)).replace("_", "[-_]")):
        recipe.with_options({**recipe().options(), **options})


@pytest.mark.parametrize("command", ["train", "plan"])
@pytest.mark.parametrize("option", [["--hidden", "0"], ["--hidden", "-3"], ["--nuisance", "nan"], ["--size", "2"]])
def test_values_from_the_command_line(command, option, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([command, "optimised-maml", *option]) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", RECIPES)
def test_options_survive_their_file(name):
    recipe = find(name)()
    assert find(name).with_options(json.loads(json.dumps(recipe.options()))) == recipe


def test_streams_stay_in_range():
    recipe = dataclasses.replace(find("maml-sinusoid")(), seed=2**32 - 1)
    assert 0 <= recipe.seed_for(101) < 2**32


RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize("name", [name for name in RECIPES if (RESULTS / f"{name}.json").exists()])
def test_committed_results_are_of_the_options_that_the_recipe_has(name):
    assert json.loads((RESULTS / f"{name}.json").read_text())["options"] == find(name)().options()
