"""Files of a finished run that somebody has damaged or changed."""

import json
import shutil

import pytest
from tests.quick import quickly_compiled

from metatower.cli import main
from metatower.core.errors import UserError
from metatower.recipes import find
from metatower.recipes.run import CONFIG, SUMMARY, execute, load
from metatower.tasks.glyphs import _own_fonts
from metatower.training.progress import Silent


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    with quickly_compiled():
        execute(find("maml-glyphs")(steps=2, batch=2, size=12, hidden=(8,), episodes=3), folder, Silent())
    return folder


def test_a_damaged_summary_is_one_sentence_and_can_be_made_again(finished, capsys):
    before = json.loads((finished / SUMMARY).read_text())
    for content, missing in ({}, "recipe"), ({**before, "recipe": 1}, "recipe"), ({**before, "results": 5}, "results"):
        (finished / SUMMARY).write_text(json.dumps(content))
        for command in ("report", "resume"):
            assert main([command, str(finished)]) == 2
            assert f"is damaged: it has no '{missing}'. Delete it" in " ".join(capsys.readouterr().err.split())
    (finished / SUMMARY).unlink()
    assert main(["resume", str(finished), "--progress", "silent"]) == 0
    assert json.loads((finished / SUMMARY).read_text())["results"] == before["results"]


@pytest.mark.parametrize("command", ["resume", "report", "diagnose", "health"])
def test_the_folder_of_a_model_is_no_run(finished, command, tmp_path, capsys):
    shutil.copytree(finished / "model", tmp_path / "model")
    assert main([command, str(tmp_path / "model")]) == 2
    assert "is the folder of a model" in " ".join(capsys.readouterr().err.split())
    assert sorted(each.name for each in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_options_that_were_changed_behind_the_model_are_found(finished):
    kept = (finished / CONFIG).read_text()
    config = json.loads(kept)
    config["options"]["batch"] += 1
    (finished / CONFIG).write_text(json.dumps(config))
    try:
        with pytest.raises(UserError, match="the one beside its model differ"):
            load(finished)
        with pytest.raises(UserError, match="the one beside its model differ"):
            execute(find("maml-glyphs").with_options(config["options"]), finished, Silent())
    finally:
        (finished / CONFIG).write_text(kept)
    load(finished)


def test_a_run_is_not_continued_with_other_fonts(tmp_path, quick_compile):
    fonts, folder = tmp_path / "fonts", tmp_path / "run"
    fonts.mkdir()
    own = _own_fonts()
    shutil.copy(own[0], fonts)
    recipe = find("maml-glyphs")(steps=2, batch=2, size=12, hidden=(8,), episodes=3, fonts=fonts)
    summary = execute(recipe, folder, Silent())
    shutil.copy(own[1], fonts)
    # a finished run stays what it is
    assert execute(recipe, folder, Silent()) == summary
    (folder / SUMMARY).unlink()
    with pytest.raises(UserError, match="are not those it began with"):
        execute(recipe, folder, Silent())
    (fonts / own[1].name).unlink()
    assert execute(recipe, folder, Silent())["results"] == summary["results"]
