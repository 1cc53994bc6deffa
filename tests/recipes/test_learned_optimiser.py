import jax
import numpy as np
import pytest

from metatower.core import pick
from metatower.core.errors import UserError
from metatower.recipes.judge import judge
from metatower.recipes.learned_optimiser import FROZEN, HAND_MADE, METRIC, OURS, LearnedOptimiser
from metatower.recipes.run import execute, load
from metatower.training.progress import Silent

TINY = {
    "steps": 2, "units": 2, "inner_steps": 4, "problems": 2, "width": (1, 2), "examples": 8, "tuned_on": 3,
    "episodes": 3,
}  # fmt: skip
LABELS = (" (fresh problems)", " (held-out ranges)", " (held-out kinds)")


@pytest.mark.usefixtures("quick_compile")
def test_the_rule_is_all_that_is_learned_and_it_is_judged_beside_every_tuned_rule(tmp_path):
    recipe = LearnedOptimiser(**TINY)
    summary = execute(recipe, tmp_path / "run", Silent())
    names = {row["name"] for row in summary["results"]}
    for label in LABELS:
        for steps in (2, 4, 40):
            end = f", {steps} steps{label}"
            assert {OURS + end, FROZEN + end} <= names
            for rule in HAND_MADE:
                assert any(name.startswith(f"{rule}, rate ") and name.endswith(end) for name in names), (rule, end)
            against = {row["against"] for row in summary["paired"] if row["name"] == OURS + end}
            assert against == {name for name in names if name.endswith(end)} - {OURS + end}
    assert {(row["metric"], row["n"], row["unit"]) for row in summary["results"]} == {(METRIC, 3, "problem")}
    # rates were chosen, and no rule that is chosen diverges on all
    assert all(np.isfinite(row["mean"]) for row in summary["results"] if row["name"].endswith(f"4 steps{LABELS[0]}"))
    artefact, start = load(tmp_path / "run"), recipe.optimiser()
    assert artefact.height == 0
    assert all(np.array_equal(a, b) for a, b in zip(pick(artefact.objective), pick(start.objective), strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(pick(artefact.rule), pick(start.rule), strict=True))
    task = recipe.held_out().sample(jax.random.key(0))
    state = artefact.adapt(task.support, key=jax.random.key(1))
    assert np.isfinite(artefact.loss(state, task.query, key=jax.random.key(2))[0])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Runs on problems by update rule" in page
    again = judge(tmp_path / "run", episodes=3)
    assert {row.name for row in again.results} >= {
        f"{name}, 4 steps{label}" for name in (OURS, FROZEN) for label in LABELS
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": 0}, "--units of at least 1"),
        ({"rule_rate": 0.0}, "--rule-rate above 0"),
        ({"held_out_kinds": ["quadratic"]}, "--held-out-kinds that are not learned from, got 'quadratic' in both"),
        ({"held_out_spread": [50.0, 200.0]}, "--held-out-spread as two numbers each, the held-out ones above"),
        ({"held_out_noise": [0.05, 0.3]}, "--held-out-noise as two numbers each, the held-out ones above"),
        ({"episodes": 1}, "at least 2 problems"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        LearnedOptimiser.with_options(options)


def test_what_the_family_refuses_is_one_sentence():
    with pytest.raises(UserError, match=r"learned-optimiser cannot be built .*kinds from .*'cubic'"):
        LearnedOptimiser(kinds=("cubic",)).build()
    with pytest.raises(UserError, match="21 examples"):
        LearnedOptimiser(examples=20).build()
