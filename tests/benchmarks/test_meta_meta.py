"""What comparisons have found, collected and told."""

from benchmarks import meta_meta
from benchmarks.meta_meta import FOUND, PAGE, collected, main
from benchmarks.meta_meta_page import page

from metatower.recipes.compare_tables import RESULT
from metatower.training.files import read_json, write_json


def comparison(families: str, difference: float, metric: str = "loss"):
    common = {"families": families, "split": "fresh", "seeds": 1, "n": 4, "unit": "distribution"}
    numbers = {f"{metric}@0": 0.5, f"{metric}@K": 0.25, "area": 0.375, "speed-up": 2.0}
    results = [
        {"name": name, "metric": each, "mean": mean, "ci95": [mean - 0.1, mean + 0.1], **common}
        for name in ("ours", "pooled MAML + K")
        for each, mean in numbers.items()
    ]
    kind = "accuracy" if metric == "accuracy" else "log-loss"
    pair = {"name": "ours", "metric": kind, "difference": difference, "ci95": [difference - 0.05, difference + 0.05]}
    against = ("pooled MAML + K", "best-baseline")
    return {
        "command": f"metatower compare meta-meta --families {families}", "families": families, "about": "Tasks.",
        "left-out": [], "metric": metric, "seconds": 90.0, "meta_steps": 10, "notes": ["Tuned."], "results": results,
        "paired": [{**pair, "against": each, "families": families, "split": "fresh"} for each in against],
        "best-baseline": {"ours, fresh": "pooled MAML + K"},
        "planned": {
            "steps": {"ours": 70}, "heads": {}, "pooled_steps": 2, "pooled_total": 9, "searched": 3, "flops": 1e9,
            "tuned_on": 2, "episodes": 4, "judged": 5, "far": 2,
        },
    }  # fmt: skip


def test_rows_on_the_same_families_are_replaced_and_others_stay():
    first = collected({}, [comparison("functions", -0.3), comparison("glyphs", 0.1, "accuracy")], ["Old."])
    second = collected(first, [comparison("functions", 0.2)], ["New."])
    assert len(second["results"]) == len(first["results"]) == 16
    found = {row["families"]: row["difference"] for row in second["paired"] if row["against"] == "best-baseline"}
    assert found == {"functions": 0.2, "glyphs": 0.1}
    assert {name: each["remarks"] for name, each in second["comparisons"].items()} == {
        "functions": ["New."],
        "glyphs": ["Old."],
    }


def test_a_gain_is_told_as_one_and_the_lack_of_it_too():
    gained, lost = (page(collected({}, [comparison("functions", x)], ["By hand."])) for x in (-0.3, 0.2))
    assert "- Ours, fresh: has 26 % less loss [22, 30], against the best of its baselines, pooled MAML + K." in gained
    assert "no gain here" not in gained
    assert "- By hand." in gained
    assert "has 22 % more loss [16, 28]: worse" in lost
    points = page(collected({}, [comparison("glyphs", 0.1, "accuracy")], []))
    assert "has 10.0 points more accuracy [5.0, 15.0], against" in points
    assert "| **ours** | 50.00 | 25.00 [15.00, 35.00] | 37.50 | 2 |" in points


def test_too_few_steps_and_unequal_compute_are_told():
    content = comparison("functions", 0.2)
    content["planned"] |= {"steps": {"ours": 7}, "spent": {"ours": 2.8e9, "pooled MAML": 1.02e9}}
    told = page(collected({}, [{**content, "minutes": 5.0}], []))
    assert "(after 7 storey-2 steps only: too few to judge it by), against the best" in told
    assert "1e+09, its start included (but ours 2.8 times that: no equal compute)" in told
    assert "2 minutes (planned: 5) on" in told
    fair = page(collected({}, [comparison("functions", 0.2)], []))
    assert "too few" not in fair
    assert "no equal compute" not in fair


def test_the_page_is_that_of_the_file():
    assert PAGE.read_text() == page(read_json(FOUND))


def test_the_command_writes_both_and_answers_a_wrong_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(meta_meta, "FOUND", tmp_path / "found.json")
    monkeypatch.setattr(meta_meta, "PAGE", tmp_path / "page.md")
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "Expected the folder of a finished comparison" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / RESULT, comparison("functions", -0.3))
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "page.md").read_text() == page(read_json(tmp_path / "found.json"))
    (tmp_path / "found.json").write_text("{")
    assert main([str(tmp_path)]) == 2  # damaged
    assert "found.json" in capsys.readouterr().err
