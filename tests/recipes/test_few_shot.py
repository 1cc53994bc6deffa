"""The few-shot recipes from end to end, small, on letters of fonts."""

import json
import os
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

from metatower.cli import main
from metatower.core import value
from metatower.core.errors import UserError
from metatower.nets.norm import norms
from metatower.recipes import find
from metatower.recipes.run import describe, execute, load
from metatower.tasks.omniglot import omniglot
from metatower.training.store import save_arrays

pytestmark = pytest.mark.usefixtures("quick_compile")
SMALL = {
    "on": "glyphs",
    "steps": 2,
    "queries": 2,
    "train_ways": 5,
    "train_queries": 2,
    "batch": 2,
    "channels": (4, 4),
    "size": 12,
    "episodes": 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    execute(find("prototypical")(**SMALL), folder)
    return folder


def test_trains_and_is_judged_beside_baselines(tmp_path):
    summary = execute(find("reptile")(**SMALL, train_shots=2, test_steps=3), tmp_path)
    rows = {row["name"]: row for row in summary["results"] if row["metric"] == "accuracy"}
    assert set(rows) == {
        "reptile",
        "reptile, norms support",
        "reptile, norms running",
        "reptile, norms none",
        "the same, untrained",
        "nearest neighbour on pixels",
    }
    assert all(0 <= row["mean"] <= 1 and row["n"] == 4 for row in rows.values())


@pytest.mark.parametrize("name", ["matching", "r2d2", "maml", "fomaml", "meta-sgd"])
def test_every_recipe_makes_a_trainer_whose_result_learns_tasks(name):
    recipe = find(name)(**SMALL)
    trainer, tasks = recipe.build()

    @eqx.filter_eval_shape
    def shapes():
        key = jax.random.key(0)
        state, metrics = trainer.update(trainer.start(key=key), tasks, key=key)
        learner, task = recipe.artefact(trainer, state), recipe.held_out().sample(key)
        return metrics, learner.loss(learner.adapt(task.support, key=key), task.query, key=key)

    metrics, (loss, judged) = shapes
    assert {"loss", "accuracy"} <= set(metrics)
    assert loss.shape == judged["accuracy"].shape == ()


def test_norms_carry_statistics_of_training_tasks_through_the_file(folder):
    moments = [value(norm.running) for norm in norms(load(folder))]
    assert len(moments) == 2
    for each in moments:
        assert np.all(np.asarray(each.variance) > 0)
        assert not np.allclose(each.mean, 0)


def test_a_model_of_features_takes_more_ways_than_it_was_judged_on(folder, capsys):
    arguments = ["evaluate", str(folder), "--ways", "9", "--queries", "1", "--episodes", "3", "--json"]
    assert main([*arguments, "--progress", "silent"]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert any(row["metric"] == "accuracy" and row["n"] == 3 for row in rows)


def test_a_model_of_outputs_does_not(tmp_path, capsys):
    recipe = find("maml")(**SMALL)
    (tmp_path / "model").mkdir()
    model = recipe.artefact(recipe.learner(), recipe.learner().start(key=jax.random.key(0)))
    save_arrays(tmp_path / "model" / "model.safetensors", model, describe(recipe), record="config.json")
    assert main(["evaluate", str(tmp_path / "model"), "--ways", "9", "--queries", "1"]) == 2
    assert "5 classes" in capsys.readouterr().err


def test_too_many_queries_for_letters_is_one_sentence():
    with pytest.raises(UserError, match="different drawings"):
        find("prototypical")(on="glyphs", queries=500).build()


@pytest.mark.data
def test_omniglot_in_another_size():
    if not (Path(os.environ.get("METATOWER_DATA", "")) / "omniglot.npz").is_file():
        pytest.skip("METATOWER_DATA names no folder with omniglot.npz")
    task = omniglot("test", size=14, ways=3, shots=2, queries=4).sample(jax.random.key(0))
    assert task.support.x.shape == (6, 14, 14)
    assert task.query.x.shape == (12, 14, 14)
    assert 0.0 <= float(task.query.x.min()) < float(task.query.x.max()) <= 1.0
