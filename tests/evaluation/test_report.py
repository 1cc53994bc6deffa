import re

import numpy as np
import pytest
from rich.console import Console

from metatower.core.errors import UserError
from metatower.evaluation import plots, report, tables
from metatower.evaluation.conclusion import Conclusion, Curves, Functions, FunctionTask, Images, Rates
from metatower.evaluation.statistics import interval
from metatower.training.files import write_json


def scores(shift: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {"accuracy": 0.6 + shift + 0.1 * rng.random(12), "loss": 1 - shift + 0.1 * rng.random(12)}


def conclusion() -> Conclusion:
    rng = np.random.default_rng(0)
    made = Conclusion(notes=["Twelve distributions <with> 3 & 4."])
    made.add("ours", scores(0.05), "distribution")
    made.add("worse", scores(), "distribution")
    made.add("the same", scores(0.05), "distribution")
    made.compare("ours", "worse", "the same")
    x = np.linspace(-5, 5, 20)
    wave = FunctionTask(x, np.sin(x), x[:5], np.sin(x[:5]), {"before": 0 * x, "after": np.sin(x) + 0.1})
    labels = np.repeat(np.arange(3), 2)
    made.figures = {
        "curves": Curves(
            "Curves.", "step", "loss", {"a": interval(rng.random((5, 4))), "b": interval(np.ones((1, 4)))}
        ),
        "log": Curves("Log.", "step", "loss", {"a": interval(rng.random((3, 4)))}, np.array([1, 2, 4, 8]), log=True),
        "rates": Rates("Rates.", ("w", "b"), np.array([[0.1, 0.2, 0.4], [0.01, np.nan, 0.1]]), start=0.1),
        "outer": Rates("Outer.", ("w", "b"), np.array([[0.1], [0.01]])),
        "waves": Functions("Waves.", (wave,) * 4),
        "pictures": Images(
            "Pictures.", rng.random((3, 8, 8)), np.arange(3), rng.random((6, 8, 8)), labels, labels[::-1]
        ),
        "colours": Images(
            "Colours.",
            rng.integers(0, 255, (3, 8, 8, 3)).astype(np.uint8),
            np.arange(3),
            rng.integers(0, 255, (6, 8, 8, 3)).astype(np.uint8),
            labels,
            labels,
        ),
    }
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    conclusion().save(folder / "conclusion.json")
    lines = [f'{{"step": {step}, "loss": {1 / step}, "accuracy": {1 - 1 / step}}}\n' for step in range(1, 90)]
    (folder / "metrics.jsonl").write_text("".join(lines) + '{"step": 90, "loss": null, "accuracy": 1.0}\n')
    write_json(folder / "config.json", {"recipe": "r", "options": {"seed": 3}, "versions": {"jax": "1"}})
    made = {"recipe": "r", "seconds": 12.3, "seed": 3, **conclusion().summary()}
    write_json(folder / "summary.json", made)
    return folder


def test_rows_and_differences():
    made = conclusion()
    first = made.results[0]
    assert (first.name, first.metric, first.n, first.unit) == ("ours", "accuracy", 12, "distribution")
    assert first.mean == pytest.approx(scores(0.05)["accuracy"].mean())
    assert {(row.against, row.metric): row.verdict for row in made.paired} == {
        ("worse", "accuracy"): "higher: a gain",
        ("worse", "loss"): "lower: a gain",
        ("the same", "accuracy"): "no gain here",
        ("the same", "loss"): "no gain here",
    }


def test_what_is_worse_or_not_finite_is_no_gain():
    made = Conclusion()
    made.add("ours", scores(-0.1), "task")
    made.add("theirs", scores(), "task")
    made.add("diverged", {"loss": np.full(12, np.nan)}, "task")
    made.compare("ours", "theirs", "diverged")
    said = {(row.against, row.metric): row.verdict for row in made.paired}
    assert (said["theirs", "accuracy"], said["theirs", "loss"]) == ("lower: worse", "higher: worse")
    assert not any(row.gain for row in made.paired)
    assert made.paired[-1].verdict.startswith("no gain here")
    assert "not finite" in made.paired[-1].verdict


def test_saved_and_loaded_to_the_last_bit(tmp_path):
    made = conclusion()
    made.save(tmp_path / "one.json")
    loaded = Conclusion.load(tmp_path / "one.json")
    assert (loaded.results, loaded.paired, loaded.notes) == (made.results, made.paired, made.notes)
    np.testing.assert_array_equal(loaded.figures["rates"].values, made.figures["rates"].values)
    assert loaded.figures["colours"].query.dtype == np.uint8
    loaded.save(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@pytest.mark.parametrize(
    "content", ["", "{}", '{"is": "Conclusion", "x": 1}', '{"is": "os.system"}', '{"is": "Result"}']
)
def test_a_damaged_conclusion_is_refused(content, tmp_path):
    (tmp_path / "conclusion.json").write_text(content)
    with pytest.raises(UserError):
        Conclusion.load(tmp_path / "conclusion.json")


@pytest.mark.parametrize("name", list(conclusion().figures))
def test_figures_are_drawn_the_same_each_time(name):
    svg, again = (plots.save(plots.draw(conclusion().figures[name]), "svg") for _ in range(2))
    assert svg == again
    assert plots.save(plots.draw(conclusion().figures[name]), "png").startswith(b"\x89PNG")


def test_curves_go_through_their_points():
    band = interval(np.array([[1.0, 2.0, 4.0], [3.0, 4.0, 8.0]]))
    (ax,) = plots.draw(Curves("c", "x", "y", {"a": band})).axes
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 2], [1, 3], [2, 6]])


def test_the_map_of_rates_is_coloured_by_the_factor():
    figure = plots.draw(Rates("c", ("w",), np.array([[0.1, 0.2, 0.05]]), start=0.1))
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, [[0, 1, -1]], atol=1e-6)


def test_the_page_needs_nothing_else_and_says_all(folder):
    page = report.rewrite(folder, "It learns.\n\nIn more words.", "load {run} <here>").read_text()
    outside = re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page)
    assert outside == []
    assert not re.search(r"<script|<link|@import", page)
    assert page.count("<svg") == 2 + 2 + 1 + len(conclusion().figures)
    for words in (
        "It learns.",
        "In more words.",
        "seed 3",
        "12 distributions",
        "no gain here",
        "a gain",
        "&lt;with&gt;",
        f"load {folder} &lt;here&gt;",
    ):
        assert words in page, words
    for figure in conclusion().figures.values():
        assert figure.caption in page
    for name in (*conclusion().figures, "learning", "results-loss", "differences-accuracy"):
        assert (folder / "plots" / f"{name}.svg").exists()
        assert (folder / "plots" / f"{name}.png").exists()


def test_a_run_that_is_not_finished_has_no_report(tmp_path):
    with pytest.raises(UserError, match="not finished"):
        report.rewrite(tmp_path, "", "")


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.51234, "accuracy", "51.23"),
        (-0.012391, "loss", "−0.01239"),
        (123456.0, "loss", "1.235e+05"),
        (np.nan, "loss", "not finite"),
        (None, "loss", "not finite"),
        (-np.inf, "loss", "−∞"),
    ],
)
def test_numbers_as_people_read_them(value, metric, text):
    assert report.number(value, metric) == text


@pytest.mark.parametrize(
    ("count", "unit", "text"), [(1, "task", "1 task"), (2, "family", "2 families"), (1200, "day", "1,200 days")]
)
def test_plurals(count, unit, text):
    assert report.plural(count, unit) == text


def test_the_table_names_unit_interval_and_verdict():
    console = Console(width=140, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    made = conclusion()
    tables.show(made.results, made.paired, made.notes, console)
    text = console.export_text()
    console.file.close()
    for words in ("accuracy (%)", "95 % interval", "12 distributions", "ours − worse", "no gain here", made.notes[0]):
        assert words in text
