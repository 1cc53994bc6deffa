"""The recipes of agents that act, from end to end, small."""

import json
from pathlib import Path

import numpy as np
import pytest

from metatower.cli import main
from metatower.core import pick
from metatower.core.errors import UserError
from metatower.evaluation.conclusion import Conclusion
from metatower.learners import RL2
from metatower.recipes import find
from metatower.recipes.judge import judge
from metatower.recipes.rl2_arm import closed
from metatower.recipes.run import CONCLUSION, execute, load
from metatower.training.progress import Silent

pytestmark = pytest.mark.usefixtures("quick_compile")
SMALL = {"steps": 2, "trials": 8, "minibatches": 2, "epochs": 1, "size": 4, "judged": 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    execute(find("rl2-bandits")(**SMALL, arms=3, episodes=4), folder)
    return folder


def test_a_bandit_run_ends_with_its_references_their_pairs_and_the_exact_optimum(folder):
    conclusion = Conclusion.load(folder / CONCLUSION)
    rows = {row.name: row for row in conclusion.results}
    assert {"RL²", "RL², greedy", "random", "greedy", "Thompson sampling", "Gittins index", "knows the arms"} <= set(
        rows
    )
    assert all(row.n == 60 and row.unit == "trial" and row.metric == "return" for row in rows.values())
    assert {row.against for row in conclusion.paired} == set(rows) - {"RL²"}
    assert any("Bayes-optimal, exact: 2.3472" in note for note in conclusion.notes)
    assert any("linear map" in note for note in conclusion.notes)
    assert conclusion.figures["regret"].levels == {
        "least at the end (exact)": pytest.approx(4 * 3 / 4 - 2.3472, abs=1e-4)
    }
    regret = conclusion.figures["regret"].series
    assert np.all(np.diff(regret["random"].mean) > 0)
    np.testing.assert_allclose(regret["knows the arms"].mean, 0, atol=1e-6)
    for name in ("regret", "entropy"):
        assert (folder / "plots" / f"{name}.svg").exists()


def test_a_trained_agent_is_loaded_and_judged_on_fresh_trials(folder, capsys):
    agent = load(folder)
    assert isinstance(agent, RL2)
    assert agent.steps == 4
    assert main(["evaluate", str(folder), "--episodes", "30", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["n"] for row in found["results"]} == {30}
    with pytest.raises(UserError, match="acts in worlds"):
        judge(folder, tasks="glyphs")


def test_evaluating_shows_the_regret_and_keeps_it_where_asked(folder, tmp_path, capsys):
    out = tmp_path / "judged"
    assert main(["evaluate", str(folder), "--episodes", "30", "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "RL² regrets" in printed
    found = Conclusion.load(out / "conclusion.json")
    assert {row.against for row in found.paired} == {row.name for row in found.results} - {"RL²"}
    regret, returns = found.figures["regret"].series["RL²"].mean, found.scores["RL²"]["return"]
    assert regret.shape == (4,)
    assert len(returns) == 30
    for name in ("regret", "entropy", "differences", "results"):
        assert (out / "plots" / f"{name}.png").exists()
    assert main(["evaluate", str(folder), "--episodes", "30", "--out", str(out)]) == 2
    assert "is there already, and is kept" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["rl2-mdps", "rl2-gridnavi"])
def test_worlds_that_training_had_none_of_are_played_beside_a_rival(name):
    recipe = find(name)(**{**SMALL, "judged": 5}, episodes=2)
    said = recipe.elsewhere(recipe.agent())
    assert len(said) == len(recipe.others()) >= 2
    assert all(f"against {recipe.rival()}" in each for each in said)


def test_gridnavi_shows_each_episode(tmp_path):
    execute(find("rl2-gridnavi")(**SMALL, episodes=2), tmp_path)
    conclusion = Conclusion.load(tmp_path / CONCLUSION)
    assert conclusion.figures["episodes"].series["oracle"].mean.shape == (2,)
    oracle = next(row for row in conclusion.results if row.name == "oracle")
    assert oracle.ci95[0] < 2 * 11.07 < oracle.ci95[1]  # exact, for two episodes


def test_navigation_is_judged_after_each_step(tmp_path):
    options = {"steps": 1, "batch": 2, "trajectories": 3, "hidden": (4,), "judged": 3, "adapted": 2}
    execute(find("maml-navigation")(**options), tmp_path)
    conclusion = Conclusion.load(tmp_path / CONCLUSION)
    assert {"MAML, before adaptation", "MAML, after 2 steps", "untrained, after 1 step"} <= set(conclusion.scores)
    assert any("stays gains -38.26" in note for note in conclusion.notes)
    returns = {row.name: row.mean for row in conclusion.results}
    assert returns["knows the goal"] > -2 > returns["stays where it is"]
    stays, knows = (conclusion.scores[name]["return"] for name in ("stays where it is", "knows the goal"))
    assert np.all(stays <= knows)
    paired = {(row.name, row.against) for row in conclusion.paired}
    assert {("MAML, after 1 step", "stays where it is"), ("MAML, after 2 steps", "knows the goal")} <= paired


def test_the_arm_is_judged_on_every_split_beside_domain_randomisation(tmp_path):
    execute(find("rl2-arm")(**{**SMALL, "judged": 3}, episodes=1), tmp_path)
    conclusion = Conclusion.load(tmp_path / CONCLUSION)
    for split in ("training", "extrapolation"):
        assert {f"RL², {split}", f"domain randomisation, {split}"} <= set(conclusion.scores)
        assert any(note.startswith(f"{split}: RL² closes") for note in conclusion.notes)
        assert {"RL²", "domain randomisation"} <= set(conclusion.figures[f"entropy-{split}"].series)


def test_how_much_of_a_gap_is_closed():
    low, high = np.zeros(4), np.full(4, 2.0)
    assert closed(np.array([1.0, 1.5, 1.5, 2.0]), low, high).startswith("RL² closes 75.0 %")


def test_ablations_are_trained_apart(tmp_path):
    execute(find("rl2-bandits")(**SMALL, arms=2, episodes=3, ablate=True), tmp_path)
    names = {row.name for row in Conclusion.load(tmp_path / CONCLUSION).results}
    assert {"without memory", "without rewards to see", "told the task"} <= names
    assert (tmp_path / "baselines" / "without-memory").is_dir()


@pytest.mark.parametrize("name", ["rl2-mdps", "rl2-gridnavi", "rl2-arm", "rl2-bandits", "maml-navigation"])
def test_every_recipe_can_be_built(name):
    trainer, worlds = find(name)().build()
    assert trainer.height == 1
    assert callable(worlds.sample)


def test_options_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="10 trials do not make 4 minibatches"):
        find("rl2-bandits")(trials=10).build()
    with pytest.raises(UserError, match="expected --arms of at least 2"):
        find("rl2-bandits")(arms=0)
    with pytest.raises(UserError, match="expected --discount from 0 to 1, got 2"):
        find("rl2-bandits")(discount=2.0)
    with pytest.raises(UserError, match="expected --credit from 0 to 1, got 2"):
        find("maml-navigation")(credit=2.0)
    with pytest.raises(UserError, match="at least 2 worlds to judge on"):
        find("maml-navigation")(judged=1)
    with pytest.raises(UserError, match="what --start does not"):
        find("rl2-bandits")(ablate=True, start=Path("rl2-bandit-10-5"))
    with pytest.raises(UserError, match="there is no --ablate"):
        find("rl2-arm")(ablate=True)


def test_training_goes_on_from_the_weights_of_another_run(folder, tmp_path):
    recipe = find("rl2-bandits")(**SMALL, arms=3, episodes=6, start=folder)
    begun = recipe.begin(recipe.learner(), tmp_path, Silent()).agent
    assert begun.steps == 6
    for mine, theirs, fresh in zip(pick(begun), pick(load(folder)), pick(recipe.agent()), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert np.any(mine != fresh) or not np.any(fresh)
    execute(recipe, tmp_path / "run")
    conclusion = Conclusion.load(tmp_path / "run" / CONCLUSION)
    assert "RL², as it began" in {row.name for row in conclusion.results}
    assert any("went on from the weights" in note for note in conclusion.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": 4}, "sees and does what agents of rl2-bandits do"),
        ({"memory": "mingru"}, "expected an RL² agent with memory 'mingru' of 4 units"),
        ({"start": Path("nowhere")}, "There is no folder nowhere"),
    ],
)
def test_another_agent_is_refused_as_a_start_and_nothing_is_written(folder, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        execute(find("rl2-bandits")(**SMALL, **({"arms": 3, "start": folder} | changes)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_start_that_comes_with_the_package_keeps_its_name_and_a_folder_becomes_absolute(folder, monkeypatch):
    named = find("rl2-mdps")(start=Path("rl2-mdp-10"))
    assert named.with_absolute_paths().start == Path("rl2-mdp-10")
    monkeypatch.chdir(folder.parent)
    assert find("rl2-bandits")(start=Path(folder.name)).with_absolute_paths().start == folder
