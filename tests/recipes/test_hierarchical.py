import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.core import pick
from metatower.core.errors import UserError
from metatower.nets.controller import EXPLORE, FOCUS, GAIN, at_rest, decided
from metatower.recipes.hierarchical import BANDIT, DRIFTING, OURS, REST, STATIC, traces
from metatower.recipes.hierarchical_functions import HierarchicalRL
from metatower.recipes.hierarchical_glyphs import HierarchicalGlyphs
from metatower.recipes.hierarchical_rivals import best_thumb
from metatower.recipes.run import execute, load
from metatower.training.progress import Silent

TINY = {
    "steps": 2, "distributions": 2, "runs": 2, "bins": 4, "start_searched": 2, "gate": 3, "meta_steps": 2,
    "meta_batch": 4, "judged": 2, "inner_steps": 1, "pooled_steps": 3, "pooled_batch": 2, "pooled_extra": 2,
    "tuned_on": 2, "searched": 2, "searched_on": 2, "episodes": 3, "final_judged": 2, "shots": 3, "queries": 3,
    "hidden": (4,),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compile")
def test_the_policy_is_trained_and_judged_beside_its_ablations_and_the_schedulers(tmp_path, monkeypatch):
    recipe = HierarchicalRL(**TINY)
    families = recipe.judged_on()
    assert len(families) == 4
    # the two of training kinds: for other kinds every contestant is compiled anew
    few = {label: family for label, family in families.items() if "kinds" not in label and "noise" not in label}
    monkeypatch.setattr(HierarchicalRL, "judged_on", lambda self: few)
    summary = execute(recipe, tmp_path / "run", Silent())
    names = {row["name"] for row in summary["results"]}
    others = (
        STATIC, DRIFTING, BANDIT, "random controller", REST, "controller shuffled", "manager frozen", "worker frozen",
        "pooled MAML + K", "pooled MAML + 5K", "MAML, rates from random search", "default MAML",
    )  # fmt: skip
    for label in recipe.judged_on():
        assert {name + label for name in (OURS, *others)} <= names
        against = {row["against"] for row in summary["paired"] if row["name"] == OURS + label}
        assert {name + label for name in others} <= against
    assert {row["n"] for row in summary["results"]} == {TINY["episodes"]}
    artefact = load(tmp_path / "run")
    assert not artefact.rewarded
    world = recipe.held_out().sample(jax.random.key(0))
    state = artefact.adapt(world.support, key=jax.random.key(1))
    assert np.isfinite(artefact.loss(state, world.query, key=jax.random.key(2))[0])
    kept = json.loads((tmp_path / "run" / "baselines" / "static.json").read_text())
    more = str(2 + recipe._runs_worth // 2)
    # for the start, and with the policy's budget on top
    assert set(kept) == {"2 drifting 3", more, f"{more} drifting 3"}
    assert (kept[more][2], kept[f"{more} drifting 3"][2][2]) == ([0.0, 0.0, 0.0], 0.0)
    assert recipe._runs_worth > 2 * 2 * 2  # a gradient costs more than its runs
    assert json.loads((tmp_path / "run" / "baselines" / "thumb.json").read_text()).popitem()[1] in (0, *recipe.thumbs)


def test_in_doubt_the_default_ships(monkeypatch):
    """The gate, both ways: what it decides by is the judge's word alone."""
    recipe = HierarchicalRL(**TINY)
    guided = recipe.guided(decided(recipe.policy()))
    moved = eqx.tree_at(lambda each: each.reflex, guided.controller, guided.controller.reflex + 0.1)
    guided = dataclasses.replace(guided, controller=moved)
    rng = np.random.default_rng(0)
    for better, ships in ((0.9, True), (1.0, False), (1.1, False)):

        def judge(self, learner, family, episodes, seed, show, title, judged=None, better=better):
            resting = not bool(jnp.any(learner.controller.reflex))
            base = np.exp(np.random.default_rng(1).normal(size=20))
            return {"loss": base if resting else better * base * np.exp(0.1 * rng.normal(size=20))}

        monkeypatch.setattr(HierarchicalRL, "_judge", judge)
        found = recipe.finish(guided, Silent())
        assert bool(jnp.any(found.controller.reflex)) == ships
        if not ships:
            for a, b in zip(pick(found.controller), pick(at_rest(moved)), strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("best", [0.0, 3.0])
def test_it_sets_out_as_the_best_rule_of_thumb(tmp_path, monkeypatch, best):
    recipe = HierarchicalRL(**TINY)
    tried = []

    def search(self, candidates, *_):
        tried.extend(candidates)
        return best

    monkeypatch.setattr(HierarchicalRL, "_best", search)
    policy, maml = recipe.policy(), recipe.maml()
    for _ in range(2):  # the second time from its file
        found = best_thumb(recipe, policy, maml, ([0.0, 0.0, -9.0], 2, [-0.1, 0.0, 0.0]), tmp_path, Silent())
        assert found.unit * found.given[GAIN] == best
        assert int(found.default_routine) == (FOCUS if best else EXPLORE)
        assert int(found.default) == 2
        np.testing.assert_allclose(found.drift, [-0.1, 0.0, 0.0], rtol=1e-6)
    assert tried == [0.0, *recipe.thumbs]


@pytest.mark.usefixtures("quick_compile")
def test_traces_say_how_often_corrupted_sources_were_taken():
    recipe = HierarchicalRL(**TINY)
    found = traces(recipe.guided(decided(recipe.policy())), recipe.corrupted((0.5,), 2), 3, 0)
    # at rest all four sources are taken in turn, of which two are corrupted
    np.testing.assert_allclose(found["corrupted"], 0.5)
    np.testing.assert_array_equal(found["inner steps"], 3)
    np.testing.assert_allclose(found["outer rate"], 1.0, rtol=1e-6)


def test_options_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="runs of at least 1"):
        HierarchicalRL(runs=0)
    with pytest.raises(UserError, match="runs >= 2"):
        HierarchicalRL(runs=1).build()
    with pytest.raises(UserError, match="shares from 0 to 1"):
        HierarchicalRL(shares=(1.5,)).build()


@pytest.mark.usefixtures("quick_compile")
def test_on_pictures_sources_mislabel_and_the_scripts_judged_on_are_held_out():
    recipe = HierarchicalGlyphs(**{**TINY, "size": 8, "classes": ("ink",)})
    worlds = {share: recipe.corrupted((share,), 2).sample(jax.random.key(0)) for share in (0.0, 0.5)}
    assert worlds[0.5].support.others is None
    assert np.sum(worlds[0.5].support.chance) == 2
    assert not np.any(worlds[0.0].support.chance)
    shares = [float(family.shares[0]) for family in recipe.judged_on().values()]
    np.testing.assert_allclose(shares, [0.0, 0.5, 0.6], rtol=1e-6)
    letters = [np.asarray(recipe.family(split).family.images) for split in ("train", "test")]
    drawn = [{image.tobytes() for image in images[:, 0]} for images in letters]
    assert not drawn[0] & drawn[1]
    guided = recipe.guided(decided(recipe.policy()))
    scores = recipe._judge(guided, recipe.held_out(), 2, 0, Silent(), "")
    assert np.all(np.isfinite(scores["loss"]))
