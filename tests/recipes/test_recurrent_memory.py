import jax
import numpy as np
import pytest

from metatower.core import pick
from metatower.core.errors import UserError
from metatower.recipes.learned_outer_rule import LearnedOuterRule
from metatower.recipes.recurrent_memory import DECIDES, OURS, SHOWN, RecurrentMemory
from metatower.recipes.run import execute, load
from metatower.training.progress import Silent

TINY = {
    "steps": 2, "distributions": 2, "tasks": 2, "memory": 3, "task_memory": 2, "rank": 2, "rule_units": 2,
    "meta_steps": 2, "meta_batch": 2, "judged": 2, "inner_steps": 1, "pooled_steps": 3, "pooled_batch": 2,
    "pooled_extra": 2, "tuned_on": 2, "searched": 2, "searched_on": 2, "episodes": 3, "final_judged": 2, "shots": 3,
    "queries": 3, "hidden": (4,),
}  # fmt: skip
LABELS = (" (fresh distributions)", " (held-out kinds)")


@pytest.mark.usefixtures("quick_compile")
def test_the_memory_is_trained_and_judged_beside_its_ablations_and_maml(tmp_path):
    recipe = RecurrentMemory(**TINY)
    summary = execute(recipe, tmp_path / "run", Silent())
    means = {row["name"]: row["mean"] for row in summary["results"]}
    for label in LABELS:
        for name in (OURS, "memory reset before every task", "memory of another distribution"):
            assert {f"{name}, task {task}{label}" for task in SHOWN} <= set(means)
        for name in (
            *("pooled MAML", "pooled MAML + K", "pooled MAML + 5K", "MAML, rates from random search", "default MAML"),
            "storey 2 frozen at its start",
            "storey 2 shuffled",
        ):
            assert name + label in means
        # without memory every task is like the first
        reset = [means[f"memory reset before every task, task {task}{label}"] for task in SHOWN]
        np.testing.assert_allclose(reset, reset[0], rtol=1e-6)
        np.testing.assert_allclose(means[f"{OURS}, task 1{label}"], reset[0], rtol=1e-5)
        ours = {row["against"] for row in summary["paired"] if row["name"] == f"{OURS}, task {DECIDES}{label}"}
        assert f"memory reset before every task, task {DECIDES}{label}" in ours
    assert {row["n"] for row in summary["results"]} == {TINY["episodes"]}
    start = recipe.begin(recipe.learner(), tmp_path / "run", Silent()).objective.learner
    artefact = load(tmp_path / "run")
    moved = [not np.array_equal(a, b) for a, b in zip(pick(start), pick(artefact), strict=True)]
    # the averages' part of the rule's network has no gradient where its output is still nought
    assert sum(moved) > 0.6 * len(moved)
    tasks = recipe.held_out().sample(jax.random.key(0))
    memory = artefact.adapt(tasks.support, key=jax.random.key(1))
    task = tasks.query.sample(jax.random.key(2))
    learner = artefact.result(memory)
    adapted = learner.adapt(task.support, key=jax.random.key(3))
    assert np.isfinite(learner.loss(adapted, task.query, key=jax.random.key(4))[0])


@pytest.mark.usefixtures("quick_compile")
def test_the_outer_rule_is_all_that_is_learned_and_it_is_judged_beside_tuned_rules(tmp_path):
    recipe = LearnedOuterRule(
        steps=2, units=2, meta_steps=2, meta_batch=2, judged=2, distributions=2, inner_steps=1, tuned_on=2, episodes=3,
        final_judged=2, shots=3, queries=3, hidden=(4,),
    )  # fmt: skip
    summary = execute(recipe, tmp_path / "run", Silent())
    names = {row["name"] for row in summary["results"]}
    for label in LABELS:
        for steps in (1, 2, 10):
            assert f"learned rule, {steps} meta-steps{label}" in names
            assert f"the rule frozen at its start, {steps} meta-steps{label}" in names
            assert any(name.startswith("Adam, rate") and name.endswith(f"{steps} meta-steps{label}") for name in names)
    artefact, start = load(tmp_path / "run"), recipe.trainer()
    for one, other in zip(pick(artefact.objective), pick(start.objective), strict=True):
        assert np.array_equal(one, other)
    assert any(not np.array_equal(a, b) for a, b in zip(pick(artefact.rule), pick(start.rule), strict=True))


def test_options_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="tasks of at least 1"):
        RecurrentMemory(tasks=0)
    with pytest.raises(UserError, match="--network-rate above 0"):
        RecurrentMemory(network_rate=0.0)
    with pytest.raises(UserError, match="units of at least 1"):
        LearnedOuterRule(units=0)
