"""What the page of meta-RL says of what was wanted and found."""

import numpy as np
from benchmarks import meta_rl
from benchmarks.meta_rl import Setting, page, rows_of

from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.statistics import interval


def concluded(shift=0.0):
    rng = np.random.default_rng(0)
    conclusion = Conclusion(notes=["a note"])
    mine, other = 2 + shift + 0.1 * rng.normal(size=50), 1 + 0.1 * rng.normal(size=50)
    conclusion.add("RL², training", {"return": mine}, "trial")
    conclusion.add("random", {"return": other}, "trial")
    conclusion.compare("RL², training", "random")
    each = interval(np.stack([mine, mine + 10], axis=1))
    conclusion.figures["episodes"] = Curves("", "episode", "return", {"RL²": each})
    return conclusion


def aims(conclusion):
    figure = conclusion.figures["episodes"]
    assert isinstance(figure, Curves)
    return {"episode 2": (figure.series["RL²"].mean[1], 12.5)}


def test_a_setting_is_told_with_its_notes_its_limits_and_what_was_reached(tmp_path, monkeypatch):
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        concluded(float(seed)).save(tmp_path / str(seed) / "conclusion.json")
    monkeypatch.setattr(meta_rl, "trained", lambda name, seed, runs, mode: (runs / str(seed), 100.0))
    setting = Setting("rl2-bandits", target=3.0, published=3.1, limit=60, aims=aims, seeds=(0, 1))
    rows = rows_of("bandit-10-5", setting, tmp_path, "silent")
    assert [row["method"] for row in rows] == ["rl2, training", "random"]
    assert rows[0]["trials"] == 100
    assert rows[0]["notes"][-1] == "a note"  # those of the first agent, whatever it is called
    assert rows[0]["notes"][0].startswith("Seeds 0, 1 gain 2.0")
    assert rows[1]["behind"]["of"] == "rl2, training"
    [aim] = rows[0]["aims"]
    assert len(aim["found"]) == 2
    text = page(rows)
    assert "100 s (at most 60 wanted: missed)" in text
    assert "episode 2: 12" in text
    assert "at least 12.5 wanted, missed" in text  # one of two seeds


def test_a_target_is_missed_reached_or_reached_within_the_interval():
    def about(mean, low):
        row = {"setting": "x", "command": "c", "seeds": [0], "seconds": 1.0, "target": 2.0, "published": 2.1}
        return page([{**row, "method": "rl2", "return": mean, "ci95": [low, 3.0], "trials": 5, "notes": []}])

    assert "missed by 0.1" in about(1.9, 1.8)
    assert "reached, and within the interval" in about(2.1, 1.9)
    assert "target 2, reached." in about(2.5, 2.4)


def test_every_setting_that_goes_on_from_another_names_one():
    after = {setting.after for setting in meta_rl.SETTINGS.values() if setting.after}
    assert after <= set(meta_rl.SETTINGS)
