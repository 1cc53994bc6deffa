import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from metatower.core.errors import UserError
from metatower.recipes import DEFAULT, RECIPES, Recipe, find


@dataclass(frozen=True)
class Sorts(Recipe):
    """Options of all sorts."""

    name: ClassVar[str] = "sorts"
    rate: float = 0.1
    sizes: tuple[int, ...] = (40, 40)
    fonts: Path | None = None
    folders: tuple[Path, ...] = ()
    quick: bool = False

    def __post_init__(self):
        if self.rate <= 0:
            raise ValueError("rate above 0")

    learner = data = held_out = artefact = conclude = lambda self: None


@pytest.mark.parametrize(
    "recipe",
    [
        Sorts(),
        Sorts(seed=3, rate=1e-7, sizes=(1,), fonts=Path("/a/b"), folders=(Path("/c"), Path("/d")), quick=True),
        *(recipe() for recipe in RECIPES.values()),
    ],
)
def test_options_come_back_from_json(recipe):
    found = type(recipe).with_options(json.loads(json.dumps(recipe.options())))
    assert found == recipe
    assert [type(getattr(found, each.name)) for each in dataclasses.fields(found)] == [
        type(getattr(recipe, each.name)) for each in dataclasses.fields(recipe)
    ]


def test_a_path_means_the_same_wherever_a_run_is_continued():
    assert Sorts(fonts=Path("a/b")).with_absolute_paths().fonts == Path.cwd() / "a" / "b"
    assert Sorts(fonts=Path("~/b")).with_absolute_paths() == Sorts(fonts=Path.home() / "b")
    assert Sorts(fonts=Path("/a/b")).with_absolute_paths() == Sorts(fonts=Path("/a/b"))


def test_options_of_another_version_are_refused():
    with pytest.raises(UserError, match="no option colour"):
        Sorts.with_options({"colour": 1})
    with pytest.raises(UserError, match="rate above 0"):
        Sorts.with_options({"rate": -1})


def test_every_recipe_stands_under_its_own_name_and_explains_itself():
    assert DEFAULT in RECIPES
    for name, recipe in RECIPES.items():
        assert find(name) is recipe
        assert recipe.name == name
        assert len(recipe.about().splitlines()) > 2
        assert recipe.__doc__ != Recipe.__doc__


def test_a_near_miss_is_guessed():
    with pytest.raises(UserError, match="Did you mean maml-sinusoid"):
        find("maml_sinusoids")
