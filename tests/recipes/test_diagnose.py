"""`metatower diagnose`, small, on letters of fonts."""

import numpy as np
import pytest

from metatower.cli import main
from metatower.core.errors import UserError
from metatower.evaluation.conclusion import Conclusion
from metatower.recipes import find
from metatower.recipes.diagnose import diagnose
from metatower.recipes.run import execute

pytestmark = pytest.mark.usefixtures("quick_compile")
SMALL = {"on": "glyphs", "steps": 2, "queries": 2, "train_ways": 5, "train_queries": 2, "batch": 2, "episodes": 4}
TINY = {"channels": (4, 4), "size": 12}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    execute(find("prototypical")(**SMALL, **TINY), folder / "prototypical")
    execute(find("maml-glyphs")(steps=2, batch=2, size=12, hidden=(8,), episodes=4), folder / "maml-glyphs")
    return folder


@pytest.mark.parametrize(
    ("name", "figures", "rows"),
    [
        (
            "maml-glyphs",
            {"similarity", "steps", "shots", "calibration", "learned_rates"},
            {"only the last layer moves", "all but the last layer move"},
        ),
        ("prototypical", {"shots", "calibration"}, {"classes of training"}),
    ],
)
def test_looks_from_every_side_that_a_learner_has(name, figures, rows, runs, capsys):
    folder = runs / name
    assert main(["diagnose", str(folder), "--episodes", "3", "--progress", "silent"]) == 0
    said = capsys.readouterr().out
    found = Conclusion.load(folder / "diagnosis.json")
    assert set(found.figures) == figures
    assert rows | {"held-out tasks", "held-out tasks, labels of the support shuffled"} <= {
        r.name for r in found.results
    }
    assert "shuffled labels" in said
    assert "gap between classes of training and held-out tasks" in " ".join(said.split())
    page = (folder / "report.html").read_text()
    assert "Does it learn to learn?" in page
    assert "expected calibration error" in page
    # drawn again, the section stays
    assert main(["report", str(folder)]) == 0
    assert "Does it learn to learn?" in (folder / "report.html").read_text()


def test_a_model_that_is_no_run_has_its_page_elsewhere(runs, tmp_path, capsys):
    model = runs / "maml-glyphs" / "model"
    arguments = ["diagnose", str(model), "--episodes", "3", "--progress", "silent"]
    assert main(arguments) == 2
    assert "--out" in capsys.readouterr().err
    out = tmp_path / "found"
    assert main([*arguments, "--out", str(out)]) == 0
    assert "expected calibration error" in (out / "diagnosis.html").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["diagnosis.html", "diagnosis.json"]
    assert sorted(path.name for path in model.iterdir()) == ["config.json", "model.safetensors"]
    capsys.readouterr()
    assert main([*arguments, "--out", str(out)]) == 2  # what is there stays
    assert main(["diagnose", "prototypical-nothing"]) == 2
    assert "prototypical-omniglot" in capsys.readouterr().err


def test_the_same_seed_says_the_same(runs):
    first, _ = diagnose(runs / "maml-glyphs", episodes=3, seed=5)
    again, _ = diagnose(runs / "maml-glyphs", episodes=3, seed=5)
    assert [row.mean for row in first.results] == [row.mean for row in again.results]
    np.testing.assert_array_equal(
        first.figures["steps"].series["held-out tasks"].mean, again.figures["steps"].series["held-out tasks"].mean
    )


def test_what_has_no_classes_is_one_sentence(tmp_path, runs):
    execute(find("maml-sinusoid")(steps=2, episodes=4), tmp_path / "waves")
    with pytest.raises(UserError, match="classes of pictures"):
        diagnose(tmp_path / "waves")
    with pytest.raises(UserError, match="at least 2"):
        diagnose(runs / "maml-glyphs", episodes=1)
    with pytest.raises(UserError, match="no folder"):
        diagnose(tmp_path / "nowhere")
