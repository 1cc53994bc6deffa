"""`metatower train optimised-prototypical`: storey 2 over a Prototypical Network, small."""

import jax
import numpy as np
import pytest

from metatower.core import pick
from metatower.core.errors import UserError
from metatower.recipes.optimised_prototypical import FROZEN, OURS, SHUFFLED, OptimisedPrototypicalGlyphs
from metatower.recipes.run import execute, load
from metatower.training.progress import Silent

TINY = {
    "steps": 2, "distributions": 2, "meta_steps": 2, "meta_batch": 2, "judged": 2, "inner_steps": 1, "pooled_steps": 3,
    "pooled_batch": 2, "pooled_extra": 2, "tuned_on": 2, "searched": 2, "searched_on": 2, "episodes": 3,
    "final_judged": 2, "feature_steps": 3, "feature_extra": 2, "size": 8, "hidden": (4,), "classes": ("ink", "size"),
}  # fmt: skip


@pytest.mark.usefixtures("quick_compile")
def test_it_is_judged_beside_what_it_has_to_beat_and_moves_all_that_storey_2_has(tmp_path):
    recipe = OptimisedPrototypicalGlyphs(**TINY)
    summary = execute(recipe, tmp_path / "run", Silent())
    names = {row["name"] for row in summary["results"]}
    heads = {f"Prototypical Network, pooled{end}" for end in ("", " + K", " + 5K")}
    mamls = {"default MAML", "pooled MAML", "pooled MAML + K", "pooled MAML + 5K", "MAML, rates from random search"}
    assert names == {OURS, FROZEN, SHUFFLED} | heads | mamls
    assert all(row["n"] == TINY["episodes"] for row in summary["results"])

    artefact = load(tmp_path / "run")
    start = recipe.contestants(artefact, tmp_path / "run", Silent())[FROZEN]
    moved = [not np.array_equal(before, after) for before, after in zip(pick(start), pick(artefact), strict=True)]
    assert all(moved)
    page = (tmp_path / "run" / "report.html").read_text()
    for figure in ("after every meta-step", "One task of a held-out distribution", "Outer rates that storey 2"):
        assert figure in page
    assert "layer 0 weight" in page


@pytest.mark.usefixtures("quick_compile")
def test_before_it_is_trained_its_preconditioner_changes_nothing():
    recipe = OptimisedPrototypicalGlyphs(**TINY)
    tasks, key = recipe.data().sample(jax.random.key(0)).support, jax.random.key(1)
    conditioned = recipe.learner().objective.learner
    plain = recipe.trainer(conditioned.objective.learner)
    assert len(pick(conditioned)) > len(pick(plain))
    ends = [pick(run.result(run.adapt(tasks, key=key)).learner) for run in (conditioned, plain)]
    starts = pick(conditioned.objective.learner)
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    # not every leaf: distances of features take no notice of the last bias, whose gradient is rounding or nothing
    assert any(not np.array_equal(one, start) for one, start in zip(ends[0], starts, strict=True))


def test_options_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="--size from 4"):
        OptimisedPrototypicalGlyphs(size=1)
    with pytest.raises(UserError, match="--weight-rate above 0"):
        OptimisedPrototypicalGlyphs(weight_rate=0.0)
