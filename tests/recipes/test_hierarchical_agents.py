"""The recipe of coached RL agents: its search, its gate, and the table beside its ablations."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.core import pick
from metatower.core.errors import UserError
from metatower.nets.coach import ManagerCoach, resting
from metatower.recipes.hierarchical_agents import (
    FALLING,
    GIVEN,
    OURS,
    RANDOM,
    REST,
    SHUFFLED,
    STATIC,
    HierarchicalAgents,
)  # fmt: skip
from metatower.recipes.judge import judge
from metatower.recipes.run import execute
from metatower.training.progress import Silent

TINY = {
    "steps": 1, "distributions": 1, "pairs": 1, "meta_steps": 2, "arms": 2, "episodes": 2, "trials": 4, "size": 2,
    "judged": 4, "static_searched": 2, "searched_on": 2, "gate": 2, "tested": 2, "final_judged": 4,
}  # fmt: skip


@pytest.mark.usefixtures("quick_compile")
def test_the_coach_is_trained_and_judged_beside_its_ablations(tmp_path):
    recipe = HierarchicalAgents(**TINY)
    summary = execute(recipe, tmp_path / "run", Silent())
    labels = ("", " (widths 0.1 to 0.3)", " (other initial weights)", " (2K steps)")
    others = (STATIC, FALLING, GIVEN, RANDOM, REST, SHUFFLED)
    assert {row["name"] for row in summary["results"]} == {name + label for name in (OURS, *others) for label in labels}
    assert {(row["name"], row["against"]) for row in summary["paired"]} == {
        (OURS + label, name + label) for name in others for label in labels
    }
    assert {(row["n"], row["unit"], row["metric"]) for row in summary["results"]} == {(2, "distribution", "return")}
    assert all(0 <= row["mean"] <= TINY["episodes"] for row in summary["results"])
    kept = json.loads((tmp_path / "run" / "baselines" / "static.json").read_text())
    assert set(kept) == {"2", str(2 + 3 // 2)}  # the storey above has made three runs
    fresh = judge(tmp_path / "run", episodes=3, seed=5)
    assert [row.n for row in fresh.results] == [3, 3]


def test_in_doubt_its_start_ships(monkeypatch):
    recipe = HierarchicalAgents(**TINY)
    coached = recipe.coached(ManagerCoach(key=jax.random.key(0)))
    coached = eqx.tree_at(lambda each: each.coach.reflex, coached, coached.coach.reflex + 0.1)
    rng = np.random.default_rng(0)
    for more, ships in ((0.5, True), (0.0, False), (-0.5, False)):

        def judged(self, learner, family, count, stream, show, title, judged=0, more=more):
            base = np.random.default_rng(1).normal(size=20)
            moved = bool(jnp.any(learner.coach.reflex))
            return base + more + 0.1 * rng.normal(size=20) if moved else base

        monkeypatch.setattr(HierarchicalAgents, "_judge", judged)
        found = recipe.finish(coached, Silent())
        assert bool(jnp.any(found.coach.reflex)) == ships
        if not ships:
            for a, b in zip(pick(found.coach), pick(resting(coached.coach)), strict=True):
                np.testing.assert_array_equal(a, b)


def test_options_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="pairs of at least 1"):
        HierarchicalAgents(pairs=0)
    with pytest.raises(UserError, match="BanditFamily: expected an arm and widths"):
        HierarchicalAgents(held_out_width=(0.5, 0.2)).build()
