import json
import os
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

import metatower
from metatower.core import names, pick, value
from metatower.core.errors import UserError
from metatower.recipes import RECIPES
from metatower.recipes.maml_baselines import MAMLBaselines
from metatower.recipes.optimised_maml import GROUPS, OURS, _net_of
from metatower.recipes.optimised_maml_functions import OptimisedMAMLFunctions
from metatower.recipes.run import execute, load
from metatower.training.progress import Silent

TINY = {
    "steps": 2, "distributions": 2, "meta_steps": 2, "meta_batch": 2, "judged": 2, "inner_steps": 1, "pooled_steps": 3,
    "pooled_batch": 2, "pooled_extra": 2, "tuned_on": 2, "searched": 2, "searched_on": 2, "episodes": 3,
    "final_judged": 2,
}  # fmt: skip


@pytest.mark.usefixtures("quick_compile")
def test_the_loop_runs_keeps_its_artefact_and_names_every_baseline(tmp_path):
    recipe = OptimisedMAMLFunctions(**TINY, shots=3, queries=3, hidden=(4,), decay_rate=0.1, learn=GROUPS[:4])
    summary = execute(recipe, tmp_path / "run", Silent())
    names = {row["name"] for row in summary["results"]}
    for label in (" (fresh distributions)", " (held-out kinds)"):
        for name in (
            OURS,
            "default MAML",
            "MAML, rates from random search",
            "pooled MAML",
            "pooled MAML + K",
            "pooled MAML + 5K",
            "storey 2 frozen at its start",
            "storey 2's rates shuffled",
        ):
            assert name + label in names
    assert {row["unit"] for row in summary["results"]} == {"distribution"}
    assert all(row["n"] == TINY["episodes"] for row in summary["results"])
    ours = {row["against"] for row in summary["paired"] if row["name"] == OURS + " (held-out kinds)"}
    assert "pooled MAML + K (held-out kinds)" in ours
    # storey 2 has moved weights, inner rates, outer rates and momentum, each leaf of them
    start = recipe.begin(recipe.learner(), tmp_path / "run", Silent()).objective.learner
    artefact = load(tmp_path / "run")
    for before, after in zip(pick(start), pick(artefact), strict=True):
        assert not np.array_equal(before, after)
    # the artefact is a learner of storey 1 that runs on any distribution
    tasks = recipe.held_out().sample(jax.random.key(0))
    state = artefact.adapt(tasks.support, key=jax.random.key(1))
    assert np.isfinite(artefact.loss(state, tasks.query, key=jax.random.key(2))[0])
    assert metatower.load(tmp_path / "run").height == 1
    # done is done: nothing is trained again
    assert execute(recipe, tmp_path / "run", Silent()) == summary
    assert json.loads((tmp_path / "run" / "config.json").read_text())["options"]["meta_steps"] == 2


@pytest.mark.usefixtures("quick_compile")
def test_the_main_job_ends_with_its_report(tmp_path):
    recipe = RECIPES["optimised-maml"](**TINY, size=8, hidden=(4,), classes=("ink", "size"))
    summary = execute(recipe, tmp_path / "run", Silent())
    assert {row["metric"] for row in summary["results"]} == {"accuracy", "loss"}
    page = (tmp_path / "run" / "report.html").read_text()
    for figure in ("after every meta-step", "One held-out distribution", "One task of a held-out distribution"):
        assert figure in page
    # where storey 2 sets out from is kept whole: its arrays and their record
    assert {each.name for each in (tmp_path / "run" / "baselines" / "start").iterdir()} == {
        "start.safetensors",
        "meta.json",
    }


def has_omniglot() -> bool:
    return (Path(os.environ.get("METATOWER_DATA", "")) / "omniglot.npz").is_file()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_builds_and_describes_its_tower(name):
    recipe = RECIPES[name]()
    learner = recipe.learner()
    storey_2 = isinstance(recipe, MAMLBaselines) or name in ("learned-outer-rule", "hierarchical-rl-agents")
    assert learner.height == (2 if storey_2 else 1)
    assert "storey 0" in metatower.describe(learner)
    if getattr(recipe, "on", None) == "omniglot" and not has_omniglot():
        pytest.skip("METATOWER_DATA names no folder with omniglot.npz")
    shapes = jax.eval_shape(recipe.data().sample, jax.random.key(0))
    assert jax.tree.leaves(shapes.support)


@pytest.mark.usefixtures("quick_compile")
def test_what_storey_2_may_learn_is_switched_and_starts_as_nothing():
    how = {**TINY, "meta_steps": 1, "shots": 3, "queries": 3, "hidden": (4,)}
    recipe = OptimisedMAMLFunctions(**how, learn=GROUPS)
    fresh, plain = recipe.optimised(), recipe.trainer()
    more = set(names(fresh)) - set(names(plain))
    for part in ("gradient.weights", "left", "right", "second", "learner.objective.first"):
        assert any(part in name for name in more), part
    tasks, key = recipe.data().sample(jax.random.key(0)).support, jax.random.key(1)
    nets = [
        pick(_net_of(t.result(eqx.filter_jit(lambda t, k: t.adapt(tasks, key=k))(t, key)).learner))
        for t in (fresh, plain)
    ]
    for one, other in zip(*nets, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    # what is not chosen does not move; the default has nothing more than MAML
    assert set(names(OptimisedMAMLFunctions(**how).optimised())) == set(names(plain))
    rates = value(OptimisedMAMLFunctions(**how, learn=("inner-rates",)).learner().rule.rule.rule.rate.numbers)
    assert int(np.sum(np.asarray(rates) > 0)) == 1


def test_runs_of_the_random_search_share_the_programs_of_storey_2s():
    recipe = OptimisedMAMLFunctions(**TINY, shots=3, queries=3, hidden=(4,))
    candidate = next(iter(recipe._candidates.values()))
    kinds = [[jax.typeof(x) for x in jax.tree.leaves(each)] for each in (candidate, recipe.trainer())]
    assert kinds[0] == kinds[1]


def test_options_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="learn"):
        OptimisedMAMLFunctions.with_options({"learn": ["rates"]})
    with pytest.raises(UserError, match="momentum is learned at --decay-rate, got 0"):
        RECIPES["optimised-maml"](decay_rate=0.0)
    with pytest.raises(UserError, match="learned-loss needs a network of which all layers"):
        RECIPES["optimised-maml"](learn=("learned-loss",))
    with pytest.raises(UserError, match="--meta-batch of at least 1"):
        OptimisedMAMLFunctions(meta_batch=0)
    with pytest.raises(UserError, match="--inner-rate above 0"):
        OptimisedMAMLFunctions(inner_rate=0.0)
    with pytest.raises(UserError, match="--held-out-kinds that are not learned from, got 'square' in both"):
        OptimisedMAMLFunctions(held_out_kinds=("step", "square"))
    with pytest.raises(UserError, match=r"kinds from .*'wave'"):
        OptimisedMAMLFunctions(kinds=("wave",)).build()


def test_kinds_of_function_are_learned_from_or_held_out_as_asked():
    recipe = OptimisedMAMLFunctions(kinds=("sinusoid",), held_out_kinds=("polynomial", "step"))
    assert recipe.family("train").kinds == recipe.family("validation").kinds == ("sinusoid",)
    assert recipe.held_out().kinds == ("polynomial", "step")


def test_inner_rates_of_biases_start_where_they_are_told():
    recipe = OptimisedMAMLFunctions(inner_rate=0.01, bias_rate=0.2, inner_steps=2)
    table = np.asarray(value(recipe.maml().rule.rule.rule.rate.numbers))
    np.testing.assert_allclose(table, [[0.01, 0.2] * 3] * 2, rtol=1e-6)
