import numpy as np
import pytest

from metatower.core import pick, value
from metatower.core.errors import UserError
from metatower.evaluation.conclusion import Conclusion
from metatower.learners.meta_gan import MetaGAN
from metatower.recipes.meta_gan import OURS, MetaGANFunctions
from metatower.recipes.meta_gan_glyphs import MetaGANGlyphs
from metatower.recipes.meta_gan_structures import called, chance, right_for
from metatower.recipes.run import CONCLUSION, execute, load
from metatower.training.progress import Silent

TINY = {
    "steps": 2, "distributions": 2, "tasks": 2, "context": 2, "pairs": 2, "elites": 4, "fresh": 2, "long": 2,
    "draws": 2, "grid": "all layers", "grid_steps": 2, "meta_steps": 2, "meta_batch": 2, "judged": 2,
    "inner_steps": 1, "pooled_steps": 3, "pooled_batch": 2, "pooled_extra": 2, "tuned_on": 3, "searched": 2,
    "searched_on": 2, "episodes": 3, "final_judged": 2, "shots": 3, "queries": 3, "hidden": (4, 4),
    "kinds": ("sinusoid", "square"),
}  # fmt: skip
LABEL = " (held-out kinds)"


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compile")
def test_the_generator_is_trained_and_judged_beside_its_ablations_and_maml(tmp_path, monkeypatch):
    recipe = MetaGANFunctions(**TINY)
    assert set(recipe.judged_on()) == {" (fresh distributions)", LABEL}
    # one of the two: every contestant is compiled anew for each
    monkeypatch.setattr(MetaGANFunctions, "judged_on", lambda self: {LABEL: self.held_out()})
    summary = execute(recipe, tmp_path / "run", Silent())
    rows = {(row["name"], row["metric"]): row for row in summary["results"]}
    wanted = (
        OURS, f"{OURS}, refined", "no adversarial term", "random structure", "nearest elite", "nearest elite + noise",
        "average of 8 elites", "storey 2 frozen at its start", "context of another distribution", "default MAML",
        "MAML, rates from random search", "pooled MAML", "pooled MAML, trained for one step", "pooled MAML + K",
        "pooled MAML + 5K",
    )  # fmt: skip
    for name in wanted:
        for n in (0, 1, 3, 10):
            assert (f"{name}, {n} steps{LABEL}", "loss") in rows, name
    assert any(name.startswith("fixed best structure") for name, _ in rows)
    for name in (OURS, "no adversarial term", "nearest elite + noise", "MAML + K"):
        for metric in ("nll", "calibration error", "loss"):
            assert np.isfinite(rows[f"ensemble of 2: {name}{LABEL}", metric]["mean"])
    ours = {row["against"] for row in summary["paired"] if row["name"] == f"{OURS}, 1 steps{LABEL}"}
    assert {f"{name}, 1 steps{LABEL}" for name in wanted if name != OURS} <= ours
    assert {row["n"] for row in summary["results"]} == {TINY["episodes"]}
    assert all(np.isfinite(row["mean"]) for row in summary["results"])
    notes = " ".join(Conclusion.load(tmp_path / "run" / CONCLUSION).notes)
    for said in (
        "Right for sinusoid, of 5",
        "A right structure is generated",
        "Memorisation",
        "times the loss of ours",
    ):
        assert said in notes
    artefact = load(tmp_path / "run")
    assert isinstance(artefact, MetaGAN)
    assert value(artefact.elites).count == TINY["fresh"]
    start = recipe.learner().learner
    moved = [not np.array_equal(a, b) for a, b in zip(pick(start), pick(artefact), strict=True)]
    assert sum(moved) > 0.8 * len(moved)


@pytest.mark.usefixtures("quick_compile")
def test_fakes_are_made_and_the_classifier_is_judged_beside_the_same_without(tmp_path):
    recipe = MetaGANGlyphs(steps=2, ways=3, size=8, hidden=(4,), batch=2, inner_steps=1, episodes=4)
    summary = execute(recipe, tmp_path / "run", Silent())
    names = [row["name"] for row in summary["results"] if row["metric"] == "accuracy"]
    assert names[:2] == ["MetaGAN", "the same without fakes (MAML)"]
    artefact = load(tmp_path / "run")
    assert artefact.objective.net.layers[-1].bias.shape == (4,)  # three classes, and fakes


def test_right_is_the_best_structure_and_what_is_not_told_from_it():
    noise = np.random.default_rng(0).normal(size=(3, 60))
    grid = {
        ("sin", "tanh"): {"square": 1 + 0.1 * noise[0]},
        ("relu", "relu"): {"square": 2 + 0.1 * noise[1]},
        ("sin", "sin"): {"square": 1.001 + 0.1 * noise[2]},
    }
    right = right_for("square", grid)
    assert set(right) == {("sin", "tanh"), ("sin", "sin")}
    assert right[0] == min(grid, key=lambda ops: grid[ops]["square"].mean())
    assert chance(grid, ("square",)) == pytest.approx(2 / 3)
    assert [called(ops) for ops in grid] == ["sin, tanh", "relu", "sin"]


def test_options_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="draws of at least 1"):
        MetaGANFunctions(draws=0)
    with pytest.raises(UserError, match="--network-rate above 0"):
        MetaGANFunctions(network_rate=0.0)
    assert MetaGANFunctions(adversarial=0.0).adversarial == 0.0
