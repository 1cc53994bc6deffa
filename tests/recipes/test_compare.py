import dataclasses
import json

import numpy as np
import pytest

from metatower.cli import main
from metatower.core.errors import UserError
from metatower.evaluation import comparison as judging
from metatower.recipes import compare as comparing
from metatower.recipes import families
from metatower.recipes.compare import Asked, compare
from metatower.training.progress import Silent

TINY = {"shots": 3, "queries": 3, "hidden": (4,), "meta_steps": 2, "meta_batch": 2, "inner_steps": 1}
OPTIONS = {
    "meta-optimisation": {"distributions": 2, "judged": 2},
    "recurrent": {
        "distributions": 2, "judged": 2, "tasks": 2, "memory": 3, "task_memory": 2, "rank": 2, "rule_units": 2
    },
    "hierarchical": {"distributions": 2, "pairs": 2, "bins": 2, "static_searched": 2, "gate": 3, "judged": 2},
    "meta-gan": {
        "distributions": 2, "tasks": 2, "context": 2, "pairs": 2, "elites": 4, "fresh": 2, "long": 2, "judged": 2
    },
}  # fmt: skip
BASELINES = {
    "default MAML", "MAML, rates from random search", "pooled MAML", "pooled MAML + K", "pooled MAML + 5K",
    "pooled MAML + K, tuned schedule",
}  # fmt: skip
SPLITS = {"fresh distributions", "held-out kinds"}
PLANNED = comparing.Planned(1e9, 2, 5, 2, dict.fromkeys(OPTIONS, 2), {
    "pooled MAML": 10, "random search": 20, "meta-optimisation": 30, "recurrent": None,
    "hierarchical": 40, "meta-gan": None,
}, 2, 2, 3, 2)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    for name, number in TINY.items():
        monkeypatch.setitem(families.COMMON, name, number)
    few = {n: dataclasses.replace(families.FAMILIES[n], options=options) for n, options in OPTIONS.items()}
    monkeypatch.setattr(comparing, "FAMILIES", few)

    def planned(asked, own, show):
        return dataclasses.replace(PLANNED, steps=dict.fromkeys(asked.chosen(own), 2))

    monkeypatch.setattr(comparing, "_plan", planned)


@pytest.mark.usefixtures("quick_compile", "tiny")
@pytest.mark.parametrize(
    "only", [("meta-optimisation", "recurrent"), pytest.param(("hierarchical", "meta-gan"), marks=pytest.mark.slow)]
)
def test_it_is_trained_judged_and_told_once(only, tmp_path, monkeypatch):
    folder, asked, measure = tmp_path / "out", Asked(only=only, seeds=(0, 1)), judging.measure
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
    assert len(calls) == 2 * 2 * contestants + 1  # seeds, splits; the one that was stopped is done again

    again = json.loads((folder / comparing.RESULT).read_text())
    for row in again["results"]:
        keys = {"name", "families", "metric", "mean", "ci95", "n", "unit", "seeds", "budget", "command", "split"}
        assert set(row) == keys
        assert (row["families"], row["unit"], row["seeds"]) == ("functions", "distribution", 2)
        assert row["n"] == (4 if row["metric"] == "loss@10K" else 6)  # seeds times distributions
    names = {row["name"] for row in again["results"]}
    assert BASELINES | set(only) <= names
    assert {f"{family}: storey 2 frozen at its start" for family in only} <= names
    assert all(any(name.startswith(f"{family}: ") and "shuffled" in name for name in names) for family in only)
    for family in only:
        for split in SPLITS:
            rows = [r for r in again["paired"] if (r["name"], r["split"]) == (family, split)]
            against = {row["against"] for row in rows}
            # its own ablations, not those of the other; the longer run is no equal
            assert BASELINES - {"pooled MAML + 5K"} | {"best-baseline"} <= against
            assert all(":" not in each or each.startswith(family) for each in against)
            best = again["best-baseline"][f"{family}, {split}"]
            twin = {row["against"]: row["difference"] for row in rows}
            assert twin["best-baseline"] == twin[best]
            losses = {
                name: np.concatenate([
                    np.array(json.loads(p.read_text())["curves"]["loss"])[:, -1]
                    for p in sorted(folder.glob(f"seed-*/judged/{comparing._slug(name)}-{comparing._slug(split)}.json"))
                ])
                for name in (family, best)
            }  # fmt: skip
            by_hand = np.mean(np.log(losses[family]) - np.log(losses[best]))
            assert twin["best-baseline"] == pytest.approx(by_hand, rel=1e-5, abs=1e-6)
    page = (folder / "comparison.html").read_text()
    assert "Who wins" in page
    assert page.count("<svg") == 4
    assert "http" not in page.replace("http://www.w3.org", "")

    calls.clear()
    assert compare(asked, folder, Silent(), "metatower compare")["results"] == content["results"]
    assert calls == []
    with pytest.raises(UserError, match=r"holds another comparison: seeds"):
        compare(Asked(only=only, seeds=(0,)), folder, Silent(), "")


def test_the_same_compute_for_all():
    planned = comparing._plan(Asked(minutes=1.0, quick=True, only=("meta-optimisation",)), None, Silent())
    recipe = families.recipe_for(families.FAMILIES["meta-optimisation"].recipe, None)
    from metatower.core.plan import plan

    one = plan(recipe.learner(), recipe.data(), compile=False).costs[0].flops
    pooled = plan(recipe._pooled_trainer(), comparing.Pooled(recipe.data()), compile=False).costs[0].flops
    ours = planned.steps["meta-optimisation"] * one + planned.pooled_steps * pooled
    assert ours == pytest.approx(planned.flops, rel=one / planned.flops)
    assert planned.pooled_total * pooled == pytest.approx(planned.flops, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--families", "nowhere.py"], "nowhere.py is no file"),
        (["--families", "function"], "takes `functions`, or a Python file"),
        (["--only", "meta"], "no family 'meta'. Choose from meta-optimisation"),
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
