"""`metatower health`: a small run whose exponent and cosines are known, what is advised, and what is refused."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from tests.quick import quickly_compiled

from metatower.cli import main
from metatower.core import pick
from metatower.core.errors import UserError
from metatower.evaluation.conclusion import Conclusion
from metatower.evaluation.gradient_health import estimators
from metatower.recipes import find
from metatower.recipes.health import START, TRAINED, health, with_numbers_of
from metatower.recipes.run import execute
from metatower.recipes.shipped import AGENTS

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """MAML whose inner step is next to nothing: its runs keep every difference, and first order is exact."""
    folder = tmp_path_factory.mktemp("runs") / "waves"
    with quickly_compiled():
        execute(find("maml-sinusoid")(steps=3, episodes=4, inner_rate=1e-9, hidden=(4,), rate=0.05), folder)
    return folder


def test_a_run_whose_numbers_are_known(run, capsys):
    assert main(["health", str(run), "--samples", "4", "--progress", "silent"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    found = Conclusion.load(run / "health.json")
    assert list(found.figures) == [START, TRAINED, "averaged"]
    for place in (START, TRAINED):
        each = found.figures[place]
        assert [row.name for row in each.rows] == ["exact", "first order", "evolution"]
        assert (each.size, each.steps, each.growth) == (13, 1, pytest.approx(1, abs=1e-5))
        np.testing.assert_allclose(each.rows[1].cosine.lo, 1, atol=1e-5)
        assert each.rows[0].norms.shape == (4,)
    assert (found.figures[START].rows[0].norms != found.figures[TRAINED].rows[0].norms).all()
    assert "trained by Unrolled" in said
    assert "first order against exact: cosine 1.000 [1.000, 1.000]; the same direction." in said
    assert "they are not chaotic" in said
    assert "16 random directions among 13 numbers" in said
    assert "Recommended: FirstOrder." in said
    page = (run / "report.html").read_text()
    assert "worth following?" in page
    assert page.count("signal/noise</th>") == 2
    # drawn again, the section stays
    assert main(["report", str(run)]) == 0
    assert "worth following?" in (run / "report.html").read_text()


def test_into_a_folder_of_its_own_and_the_same_again(run, tmp_path):
    before = {each: each.stat().st_mtime_ns for each in run.rglob("*")}
    first, page = health(run, samples=3, seed=5, out=tmp_path / "one")
    again, _ = health(run, samples=3, seed=5, out=tmp_path / "two")
    other, _ = health(run, samples=3, seed=6, out=tmp_path / "three")
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "<svg" in page.read_text()
    assert (tmp_path / "one" / "health.json").read_bytes() == (tmp_path / "two" / "health.json").read_bytes()
    assert first.notes == again.notes != other.notes
    assert before == {each: each.stat().st_mtime_ns for each in run.rglob("*")}


SMALL = {
    "optimised-maml-functions": {"hidden": (4,), "meta_steps": 2},
    "learned-outer-rule": {"meta_steps": 2},
    "hierarchical-rl-agents": {},
    "hierarchical-rl": {},
    "reptile": {"on": "glyphs", "channels": (4,), "size": 8},
    "prototypical": {"on": "glyphs", "channels": (4,), "size": 8},
    "maml-navigation": {},
}
EXPECTED = {
    "optimised-maml-functions": ["exact", "own (Clipped of Relative)", "first order", "truncated", "evolution"],
    "learned-outer-rule": ["exact", "own (Lifelong)", "first order", "truncated", "evolution"],
    "hierarchical-rl-agents": ["own (Evolution)", "noise reuse"],
    "hierarchical-rl": ["own (ScoreFunction)", "evolution"],
    "reptile": ["exact", "own (Reptile)", "first order", "truncated", "evolution"],
    "prototypical": ["exact", "evolution"],
    "maml-navigation": ["exact", "first order", "evolution"],
}


@pytest.mark.parametrize("name", SMALL)
def test_what_was_learned_finds_its_place_in_the_tower(name):
    """Artefacts take other steps than their training, and other modes; the numbers are the same."""
    recipe = find(name)(**SMALL[name])
    tower = recipe.learner()
    state = tower.start(key=jax.random.key(0))
    state = dataclasses.replace(state, leaves=[leaf + 1 for leaf in state.leaves])
    placed = with_numbers_of(tower, recipe.artefact(tower, state))
    assert jax.tree.structure(placed) == jax.tree.structure(tower)
    for mine, wanted in zip(pick(placed.objective, tower.learn), state.leaves, strict=True):
        np.testing.assert_array_equal(mine, wanted)
    assert list(estimators(tower)) == EXPECTED[name]


def test_what_cannot_be_measured_is_one_sentence(run, tmp_path, capsys):
    agent = shutil.copytree(AGENTS / "rl2-bandit-10-5", tmp_path / "agent")
    with pytest.raises(UserError, match=r"rl2-bandits trains by PPO, which has none\. Try a run of maml-sinusoid"):
        health(agent, out=tmp_path / "page")
    assert not (tmp_path / "page").exists()
    with pytest.raises(UserError, match="is the folder of a model"):
        health(agent)
    with pytest.raises(UserError, match="--samples of at least 2, got 1"):
        health(run, samples=1)
    with pytest.raises(UserError, match="--seed from 0"):
        health(run, seed=-1)
    with pytest.raises(UserError, match="no folder"):
        health(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert main(["health", str(tmp_path / "empty")]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert main(["health", str(run), "--out", str(tmp_path)]) == 2
    assert "Choose another --out" in capsys.readouterr().err
    deep, flat = (find("maml-sinusoid")(hidden=hidden).learner() for hidden in ((4, 4), (4,)))
    with pytest.raises(UserError, match=r"has no objective\.net\.layers\.2"):
        with_numbers_of(deep, flat.objective.learner)
