import dataclasses
import json

import equinox as eqx
import jax
import numpy as np
import pytest
from tests.toys import Slopes, curve, number

from metatower import Descend, lift, sgd
from metatower.cli import main
from metatower.core import pick
from metatower.core.errors import UserError
from metatower.core.plan import step_flops
from metatower.evaluation import comparison as judging
from metatower.evaluation.comparison import Measured
from metatower.recipes import compare as comparing
from metatower.recipes import compare_plan, compare_seed, grounds
from metatower.recipes.base import Recipe
from metatower.recipes.compare import compare
from metatower.recipes.compare_plan import Asked, Planned, plan
from metatower.recipes.compare_seed import Contest, _trained, slug
from metatower.recipes.compare_tables import RESULT, _budget
from metatower.recipes.families import FAMILIES, family_recipe
from metatower.recipes.feature_baselines import PROTOTYPES, trainer
from metatower.recipes.maml_baselines import START
from metatower.recipes.optimised_maml_functions import OptimisedMAMLFunctions
from metatower.recipes.optimised_maml_glyphs import OptimisedMAMLGlyphs
from metatower.tasks.pooled import Pooled
from metatower.training.failure import NonFinite
from metatower.training.progress import Silent

TINY = {"hidden": (4,), "meta_steps": 2, "meta_batch": 2, "inner_steps": 1}
OPTIONS = {
    "meta-optimisation": {"distributions": 2, "judged": 2},
    "meta-optimised-prototypes": {"distributions": 2, "judged": 2},
    "recurrent": {
        "distributions": 2, "judged": 2, "tasks": 2, "memory": 3, "task_memory": 2, "rank": 2, "rule_units": 2
    },
    "hierarchical": {"distributions": 2, "runs": 2, "bins": 2, "start_searched": 2, "gate": 3, "judged": 2},
    "meta-gan": {
        "distributions": 2, "tasks": 2, "context": 2, "pairs": 2, "elites": 4, "fresh": 2, "long": 2, "judged": 2
    },
}  # fmt: skip
BASELINES = {
    "default MAML", "MAML, rates from random search", "pooled MAML", "pooled MAML + K", "pooled MAML + 5K",
    "pooled MAML + K, tuned schedule",
}  # fmt: skip
HEADS = {"Prototypical Network, pooled", "ridge head, pooled"}
SPLITS = {
    "functions": {"fresh distributions", "held-out kinds"},
    "glyphs": {"held-out scripts and ranges"},
}
FIRST, LAST = ("meta-optimisation", "recurrent"), ("hierarchical", "meta-gan")
PLANNED = Planned(1e9, 2, 5, 2, dict.fromkeys(OPTIONS, 2), {}, 2, {
    "pooled MAML": 10, "random search": 20, "meta-optimisation": 30, "recurrent": None,
    "hierarchical": 40, "meta-gan": None, "meta-optimised-prototypes": 0,
}, 2, 2, 3, 2)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    small = {
        "functions": lambda: grounds.functions(OptimisedMAMLFunctions(shots=3, queries=3, **TINY)),
        "glyphs": lambda: grounds.glyphs(OptimisedMAMLGlyphs(size=8, classes=("ink", "size"), **TINY)),
    }
    for name, make in small.items():
        monkeypatch.setitem(grounds.GROUNDS, name, lambda make=make: dataclasses.replace(make(), options=OPTIONS))

    def planned(asked, where, show):
        steps = dict.fromkeys(asked.chosen(where), 2)
        return dataclasses.replace(PLANNED, steps=steps, heads=dict.fromkeys(HEADS, 4) if where.features else {})

    monkeypatch.setattr(comparing, "plan", planned)


@pytest.mark.usefixtures("quick_compile", "tiny")
@pytest.mark.parametrize(
    ("families", "only"),
    [
        ("functions", FIRST),
        pytest.param("functions", LAST, marks=pytest.mark.slow),
        pytest.param("glyphs", FIRST, marks=pytest.mark.slow),
        pytest.param("glyphs", LAST, marks=pytest.mark.slow),
        pytest.param("glyphs", ("meta-optimised-prototypes",), marks=pytest.mark.slow),
    ],
)
def test_it_is_trained_judged_and_told_once(families, only, tmp_path, monkeypatch):
    folder, measure = tmp_path / "out", judging.measure
    asked = Asked(families, only, seeds=(0, 1) if families == "functions" else (0,))
    decides = "loss" if families == "functions" else "accuracy"
    baselines = BASELINES | (set() if families == "functions" else HEADS | {f"{name} + K" for name in HEADS})
    calls = []

    def stops(*args, **how):
        calls.append(how["title"])
        if len(calls) == 5:
            raise KeyboardInterrupt
        return measure(*args, **how)

    monkeypatch.setattr(judging, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        compare(asked, folder, Silent(), "metatower compare")
    content = compare(asked, folder, Silent(), "metatower compare")
    contestants = len({row["name"] for row in content["results"]})
    # seeds, splits; the one that was stopped is done again
    assert len(calls) == len(asked.seeds) * len(SPLITS[families]) * contestants + 1

    again = json.loads((folder / RESULT).read_text())
    for row in again["results"]:
        keys = {"name", "families", "metric", "mean", "ci95", "n", "unit", "seeds", "budget", "command", "split"}
        assert set(row) == keys
        assert (row["families"], row["unit"], row["seeds"]) == (families, "distribution", len(asked.seeds))
        assert row["n"] == len(asked.seeds) * (2 if row["metric"] == f"{decides}@10K" else 3)  # distributions of each
    names = {row["name"] for row in again["results"]}
    assert baselines | set(only) <= names
    assert {f"{decides}@0", f"{decides}@K", f"{decides}@10K"} <= {r["metric"] for r in again["results"]}
    assert {f"{family}: storey 2 frozen at its start" for family in only} <= names
    assert all(any(name.startswith(f"{family}: ") and "shuffled" in name for name in names) for family in only)
    for family in only:
        for split in SPLITS[families]:
            kind = "log-loss" if decides == "loss" else "accuracy"
            pairs = [r for r in again["paired"] if (r["name"], r["split"]) == (family, split)]
            rows = [r for r in pairs if r["metric"] == kind]
            against = {row["against"] for row in rows}
            # its own ablations, not those of the other; the longer run is no equal
            assert baselines - {"pooled MAML + 5K"} | {"best-baseline"} <= against
            assert all(":" not in each or each.startswith(family) for each in against)
            best = again["best-baseline"][f"{family}, {split}"]
            twin = {row["against"]: row["difference"] for row in rows}
            assert twin["best-baseline"] == twin[best]
            ends = {
                name: np.concatenate([
                    np.array(json.loads(p.read_text())["curves"][decides])[:, -1]
                    for p in sorted(folder.glob(f"seed-*/judged/{slug(name)}-{slug(split)}.json"))
                ])
                for name in (family, best)
            }  # fmt: skip
            ours, theirs = (np.log(ends[n]) if decides == "loss" else ends[n] for n in (family, best))
            assert twin["best-baseline"] == pytest.approx(np.mean(ours - theirs), rel=1e-5, abs=1e-6)
            others = [r["against"] for r in rows if r["against"] not in (best, "best-baseline")]
            # nobody is better than the best: ours minus theirs
            sign = 1 if decides == "loss" else -1
            assert all(sign * twin[other] <= sign * twin[best] + 1e-9 for other in others)
    page = (folder / "comparison.html").read_text()
    assert "Who wins" in page
    assert page.count("<svg") == 2 * len(SPLITS[families])
    assert ("accuracy after K" in page) == (decides == "accuracy")
    assert "http" not in page.replace("http://www.w3.org", "")

    calls.clear()
    assert compare(asked, folder, Silent(), "metatower compare")["results"] == content["results"]
    assert calls == []
    with pytest.raises(UserError, match=r"holds another comparison: seeds"):
        compare(dataclasses.replace(asked, seeds=(5,)), folder, Silent(), "")


@dataclasses.dataclass(frozen=True)
class OnlyTheRate(Recipe):
    """Learns the inner rate, from weights that it is given when it begins."""

    name = "only-the-rate"
    steps: int = 1

    def learner(self):
        maml = Descend(curve(), sgd(number(0.1)), steps=1)
        return lift(maml, sgd(number(0.01)), batch=1, learn=lambda maml: maml.rule)

    def data(self):
        return Slopes(number(1.0))

    held_out = data

    def begin(self, learner, folder, show):
        return eqx.tree_at(lambda tower: tower.objective.learner.objective, learner, self.given())

    def artefact(self, learner, state):
        return learner.result(state).learner

    def conclude(self, artefact, folder, show):
        raise NotImplementedError

    @staticmethod
    def given():
        return jax.tree.map(lambda leaf: leaf + 3.0, curve())


def test_what_storey_2_does_not_learn_stays_as_it_began(tmp_path):
    for _ in range(2):  # trained, and read from its file
        artefact = _trained(OnlyTheRate(), "rate", tmp_path, "meta.json", Silent())
        for leaf, given in zip(pick(artefact.objective), pick(OnlyTheRate.given()), strict=True):
            assert leaf == given
        assert artefact.rule.rate != number(0.1)


@pytest.mark.parametrize("families", ["functions", "glyphs"])
def test_the_same_compute_for_all(families, monkeypatch):
    monkeypatch.setattr(compare_plan, "TRIED", 20)
    where = grounds.ground(families)
    planned = plan(Asked(families, minutes=1.0, quick=True, only=("meta-optimisation",)), where, Silent())
    recipe = family_recipe("meta-optimisation", where)
    from metatower.core.plan import plan as costs

    one = costs(recipe.learner(), recipe.data(), compile=False).costs[0].flops
    pooled = costs(recipe._pooled_trainer(), Pooled(recipe.data()), compile=False).costs[0].flops
    ours = planned.steps["meta-optimisation"] * one + planned.pooled_steps * pooled
    assert ours == pytest.approx(planned.flops, rel=one / planned.flops)
    # whole steps: as near as one of them
    assert abs(planned.pooled_total * pooled - planned.flops) <= pooled * 1.01
    assert planned.pooled_steps == pytest.approx(where.start_share * planned.pooled_total, abs=1)
    assert set(planned.heads) == (HEADS if families == "glyphs" else set())
    for name, steps in planned.heads.items():
        head = trainer(recipe, name, where.features(0), steps)
        each = costs(head, Pooled(recipe.data()), compile=False).costs[0].flops
        assert steps * each == pytest.approx(planned.flops, abs=each)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compile", "tiny")
def test_what_not_every_step_does_counts_by_its_mean_and_searches_count(monkeypatch):
    """Elites of the meta-GAN enter every eighth step; a policy's start is searched for, and it is judged at a gate."""
    monkeypatch.setattr(compare_plan, "TRIED", 20)
    where = grounds.ground("functions")
    planned = plan(Asked("functions", minutes=300.0, quick=True, only=("meta-gan", "hierarchical")), where, Silent())
    gan, guided = (family_recipe(name, where, searched_on=planned.tuned_on) for name in ("meta-gan", "hierarchical"))
    assert gan.flops_of_step() < step_flops(gan.learner(), gan.data())
    assert planned.steps["meta-gan"] == round(planned.flops / gan.flops_of_step())
    begun = planned.pooled_steps * step_flops(guided._pooled_trainer(), Pooled(guided.data()))
    ours = planned.steps["hierarchical"] * guided.flops_of_step() + guided.flops_besides() + begun
    assert ours == pytest.approx(planned.flops, abs=guided.flops_of_step())
    runs = guided.start_searched * planned.tuned_on + 2 * guided.gate
    assert guided.flops_besides() == runs * guided._flops_of_run
    assert planned.evaluations["meta-gan"] == planned.steps["meta-gan"] * gan.evaluations()
    parents = {f"{name}: storey 2 frozen at its start": name for name in ("meta-gan", "hierarchical")}
    budgets = [_budget(name, planned, parents) for name in parents]
    assert budgets == [0, planned.evaluations["pooled MAML"] * planned.pooled_steps // planned.pooled_total]


def test_a_short_training_searches_less_beside_its_steps():
    recipe = family_recipe("hierarchical", grounds.ground("functions"), searched_on=24)
    besides = recipe.flops_besides()
    assert recipe.lowered(besides) == {}
    less = recipe.lowered(besides / 3)
    assert less == {"start_searched": recipe.start_searched // 3, "gate": recipe.gate // 3}
    assert dataclasses.replace(recipe, **less).flops_besides() <= besides / 3
    assert family_recipe("meta-optimisation", grounds.ground("functions")).lowered(0.0) == {}


def test_every_family_tells_its_budget():
    for name in FAMILIES:
        where = grounds.ground("glyphs" if FAMILIES[name].by_features else "functions")
        assert family_recipe(name, where).evaluations() is not None, name


def test_prototypes_have_the_same_compute_as_all():
    where, name = grounds.ground("glyphs"), "meta-optimised-prototypes"
    planned = plan(Asked("glyphs", minutes=1.0, quick=True, only=(name,)), where, Silent())
    recipe = family_recipe(name, where)
    from metatower.core.plan import plan as costs

    one = costs(recipe.learner(), recipe.data(), compile=False).costs[0].flops
    head = costs(trainer(recipe, PROTOTYPES, where.features(0), 1), Pooled(recipe.data()), compile=False).costs[0].flops
    ours = planned.steps[name] * one + planned.head_start * head
    assert ours == pytest.approx(planned.flops, rel=one / planned.flops)
    assert planned.head_start == pytest.approx(where.start_share * planned.heads[PROTOTYPES], abs=1)
    assert planned.evaluations[name] == 0


def test_prototypes_take_part_where_tasks_have_labels_only():
    assert "meta-optimised-prototypes" in Asked("glyphs").chosen(grounds.ground("glyphs"))
    where = grounds.ground("functions")
    assert "meta-optimised-prototypes" not in Asked().chosen(where)
    assert [each.split(" takes no part: ")[0] for each in Asked().left_out(where)] == ["meta-optimised-prototypes"]
    with pytest.raises(UserError, match="the tasks have no labels"):
        Asked(only=("meta-optimised-prototypes",)).chosen(where)


def test_on_glyphs_the_settings_are_those_of_the_main_job():
    main, recipe = OptimisedMAMLGlyphs(), family_recipe("meta-optimisation", grounds.ground("glyphs"))
    theirs = {name: value for name, value in main.options().items() if name in recipe.options()}
    lengths = ("steps", "pooled_steps", "pooled_extra", "searched", "searched_on", "tuned_on")
    ours = recipe.options()
    assert {n for n in theirs if ours[n] != theirs[n]} <= set(lengths)
    assert recipe.metric == "accuracy"
    assert [each.shape for each in pick(recipe.maml().objective, recipe.adapted)] == [(40, 40), (40,), (40, 5), (5,)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--families", "nowhere.py"], "nowhere.py is no file"),
        (["--families", "function"], "takes `functions`, `glyphs`, or a Python file"),
        (["--only", "meta-optimised-prototypes"], "the tasks have no labels"),
        (["--only"], "--only: expected one or more values, got none"),
        (["--only", "meta"], "no family 'meta'. Choose from meta-optimisation"),
        (["--seeds", "--quick"], "--seeds: expected one or more values, got none"),
        (["--seeds", "1", "1"], "different numbers"),
        (["--budget", "0"], "minutes above 0"),
        (["--budget", "nan"], "minutes above 0"),
        (["--seeds", "-1"], "seeds"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "meta-meta", *arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.strip().count("\n") == 0
    assert not list(tmp_path.iterdir())


def test_a_file_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def family(split):\n    return 3\n")
    assert main(["compare", "meta-meta", "--families", "mine.py"]) == 2
    assert "returned an int" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_compare_teaches(capsys):
    assert main(["compare", "--help"]) == 0
    said = capsys.readouterr().out
    assert "metatower compare meta-meta --families functions" in said
    assert "def family(split: str)" in said
    assert main(["compare"]) == 2


def test_a_family_whose_training_stops_being_finite_is_left_out_and_told(tmp_path, monkeypatch):
    """In one seed of two: of the other there is no row either."""
    rng = np.random.default_rng(0)

    def one_seed(asked, planned, where, seed, folder, show):
        contest = Contest(chosen=f"seed {seed}")
        names = [*asked.only, *BASELINES]
        if seed == 1:
            names.remove("recurrent")
            contest.failed["recurrent"] = "recurrent is in no table. Seed 1: Non-finite loss at storey 2"
        contest.parents |= {name: name for name in asked.only if name in names}
        curves = {name: rng.random((4, 11)) for name in names}
        measured = {
            (name, split): Measured({"loss": curve}, None)
            for name, curve in curves.items()
            for split in SPLITS["functions"]
        }
        return measured, contest

    monkeypatch.setattr(comparing, "one_seed", one_seed)
    monkeypatch.setattr(comparing, "plan", lambda *_: dataclasses.replace(PLANNED, steps=dict.fromkeys(FIRST, 2)))
    content = compare(Asked("functions", FIRST, seeds=(0, 1)), tmp_path / "out", Silent(), "metatower compare")
    assert {row["name"] for row in content["results"]} == {"meta-optimisation", *BASELINES}
    assert all(row["n"] == 8 for row in content["results"])
    assert {row["name"] for row in content["paired"]} == {"meta-optimisation"}
    assert any(note.startswith("recurrent is in no table. Seed 1") for note in content["notes"])
    assert "recurrent is in no table" in next((tmp_path / "out").glob("*.html")).read_text()


@pytest.mark.usefixtures("tiny")
def test_a_training_that_stops_being_finite_ends_neither_the_seed_nor_the_other_families(tmp_path, monkeypatch):
    where, contest = grounds.ground("functions"), Contest()

    def trained(recipe, name, *_):
        if name == "recurrent":
            raise NonFinite("Non-finite loss at storey 2, step 3", None, 3, None)
        return recipe.artefact(recipe.learner(), recipe.learner().start(key=jax.random.key(0)))

    monkeypatch.setattr(compare_seed, "_trained", trained)
    (tmp_path / "baselines" / START).mkdir(parents=True)
    planned = dataclasses.replace(PLANNED, steps=dict.fromkeys(reversed(FIRST), 2))
    options = compare_seed._options(planned, 0)
    monkeypatch.setattr(OptimisedMAMLFunctions, "compared", lambda self, artefact, *_: {"ours": artefact})
    compare_seed._families(contest, planned, where, options, tmp_path, Silent())
    assert list(contest.contestants) == ["meta-optimisation"]
    assert contest.failed == {
        "recurrent": "recurrent is in no table. Seed 0: Non-finite loss at storey 2, step 3",
    }
