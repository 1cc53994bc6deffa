"""The comparison on features of one network, end to end on pictures of plain colours."""

import dataclasses

import jax
import numpy as np
import pytest
from benchmarks import leo_features, plain_features
from benchmarks.feature_tasks import FeatureTasks
from benchmarks.leo_features import LEO, METHODS, Asked, compared
from benchmarks.leo_page import page
from tests.quick import quickly_compiled

from metatower.core.errors import UserError
from metatower.training.progress import Silent

COMPARED = (LEO, "Prototypical Network, linear", "nearest centroid", "ridge regression", "nearest neighbour")
pytestmark = pytest.mark.usefixtures("quick_compile")


def write(file, shuffled=False):
    """20 classes, each of a colour; if shuffled, the pictures of the test classes are dealt to them at random."""
    random = np.random.default_rng(0)
    colours = random.integers(40, 216, (20, 1, 1, 1, 3))
    images = np.clip(colours + random.normal(0, 15, (20, 20, 8, 8, 3)), 0, 255).astype(np.uint8)
    if shuffled:
        images[15:] = random.permutation(images[15:].reshape(-1, 8, 8, 3)).reshape(images[15:].shape)
    np.savez(file, images=images, split=np.array(["train"] * 10 + ["val"] * 5 + ["test"] * 5))
    return file


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leo")
    return Asked(
        write(folder / "data.npz"),
        folder / "runs",
        network_steps=12,
        channels=(8, 8),
        steps=4,
        every=2,
        episodes=30,
        validated_on=20,
        seeds=(0, 1),
        tries=2,
        methods=COMPARED,
        shots=(1,),
    )


@pytest.fixture(scope="module")
def rows(asked):
    with quickly_compiled():  # before the fixture of each test
        return compared(asked, Silent())


def named(rows, name):
    return next(row for row in rows if row["method"] == name)


def test_all_are_judged_and_the_differences_are_those_of_the_same_tasks(rows):
    assert [row["method"] for row in rows] == list(COMPARED)
    assert named(rows, "nearest centroid")["accuracy"] > 90
    assert named(rows, LEO)["accuracy"] > 50
    for row in rows[1:]:
        lo, hi = row["leo_minus_ci95"]
        assert row["leo_minus"] == pytest.approx(rows[0]["accuracy"] - row["accuracy"], abs=0.011)
        assert lo <= row["leo_minus"] <= hi
    trained = named(rows, LEO)
    assert len(trained["of_each_seed"]) == len(trained["seeds"]) == 2
    assert trained["of_each_seed"][0] != trained["of_each_seed"][1]
    assert trained["validation"] == max(trained["tried"])
    assert trained["chosen"] == METHODS[LEO].settings[int(np.argmax(trained["tried"]))]


def test_a_second_call_trains_nothing_and_says_the_same(asked, rows, monkeypatch):
    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(leo_features, "train", never)
    monkeypatch.setattr(plain_features, "train", never)
    assert compared(asked, Silent()) == rows


def test_half_a_training_is_continued_to_the_same_end(asked, rows, tmp_path, monkeypatch):
    real, calls = leo_features.train, []

    def stops(*given, **how):
        calls.append(how["steps"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **how)

    fresh = dataclasses.replace(asked, runs=tmp_path, methods=(LEO,))
    monkeypatch.setattr(leo_features, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        compared(fresh, Silent())
    again = compared(fresh, Silent())
    assert calls[:3] == [2, 4, 4]  # the first half was not done again
    assert {**again[0], "seconds": 0} == {**rows[0], "seconds": 0}


def test_nothing_of_the_test_classes_is_used_before_they_are_judged(asked, rows, tmp_path):
    other = dataclasses.replace(asked, data=write(tmp_path / "data.npz", shuffled=True), runs=tmp_path / "runs")
    found = compared(other, Silent())
    assert [row["tried"] for row in found] == [row["tried"] for row in rows]
    assert all(row["accuracy"] < 35 for row in found)  # chance is 20


def test_what_is_kept_is_not_taken_for_something_else(asked, rows):
    with pytest.raises(UserError, match="other settings"):
        compared(dataclasses.replace(asked, network_steps=13), Silent())
    with pytest.raises(UserError, match="other settings"):
        compared(dataclasses.replace(asked, validated_on=21), Silent())
    with pytest.raises(UserError, match="Expected LEO"):
        dataclasses.replace(asked, methods=("LEA",))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_adapts_in_each_of_its_settings(name):
    vectors = np.random.default_rng(0).normal(size=(6, 6, 12)).astype(np.float32)
    task = FeatureTasks(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), 5, 2, 3).sample(jax.random.key(0))
    method = METHODS[name]
    assert len(method.settings) == 4 or not method.trained
    for setting in method.settings:
        learner = method.finished(method.make(12, jax.random.key(1), setting))
        state = learner.adapt(task.support, key=jax.random.key(2))
        one, two = (learner.loss(state, task.support, key=jax.random.key(i))[1]["accuracy"] for i in (3, 4))
        assert one == two  # once adapted, its answers are not drawn at random
        assert one > 0.2


def test_the_page_says_who_is_better(rows):
    content = {"command": "x", "network_steps": 1, "channels": [8], "steps": 4, "every": 2, "episodes": 30}
    content |= {"validated_on": 20, "ways": 5, "queries": 15, "batch": 6}
    made = []
    for name, lo, hi in (("a", 1.0, 2.0), ("b", -1.0, 2.0), ("c", -3.0, -1.0)):
        row = {**rows[1], "method": name, "leo_minus": (lo + hi) / 2, "leo_minus_ci95": [lo, hi]}
        made.append(row)
    text = page({**content, "rows": [rows[0], *made]})
    assert "LEO is better than a; worse than c; not to be told from b." in text
    assert (text.count("no gain here"), text.count(": worse")) == (1, 1)
    assert "+13.06" in text
