import json

import jax
import jax.numpy as jnp
import pytest

import metatower as mt
from metatower.core import Task, Tasks
from metatower.core.errors import UserError
from metatower.nets import Examples
from metatower.tasks.functions import Sinusoids
from metatower.training import NonFinite, loop, replay, train


class Sometimes(Tasks):
    """Sinusoids, but about one task in fifty has a target of infinite height."""

    of: Sinusoids
    share: float = 0.02

    def sample(self, key):
        task = self.of.sample(key)
        high = jnp.where(jax.random.uniform(key) < self.share, jnp.inf, 1.0)
        return Task(Examples(task.support.x, task.support.y * high), task.query)


def test_stops_before_the_bad_step_and_says_where(towers, tmp_path, monkeypatch, quick_compile):
    learner, _ = towers[1]
    data = Sometimes(Sinusoids(5, 5))
    monkeypatch.setattr(loop, "_next_count", lambda count, seconds: 16)
    with pytest.raises(NonFinite) as caught:
        train(learner, data, steps=500, seed=1, folder=tmp_path, config={"rate": 1})
    error, text = caught.value, str(caught.value)

    # found by hand: the first step with a bad task among its two
    def tasks(i):
        runs = learner.objective.runs(data, key=jax.random.fold_in(jax.random.key(1), i))
        return [bool(jnp.isinf(data.sample(run.task_key).support.y).any()) for run in runs]

    step = next(i for i in range(500) if any(tasks(i)))
    assert step > 3
    assert error.step == step
    assert error.fault.task == tasks(step).index(True)
    assert (error.fault.what, error.fault.leaf, error.fault.storey) == ("task data", "support.y", 0)
    assert f"at storey 1, step {step} (key 0x" in text
    assert "Try a lower rate" in text
    assert "\n" not in text
    # the state is the one before that step, and the log ends there
    found = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert found["step"] == step
    assert (tmp_path / f"checkpoint-{step}").is_dir()
    # the reproducer shows it again, from either folder, and shows whether a cure helps
    assert error.folder == tmp_path / "reproducer"
    assert text.endswith(f" Reproducer: {error.folder}")
    assert text.split(" Reproducer: ")[0] in (error.folder / "message.txt").read_text()
    for folder in (tmp_path, error.folder):
        assert replay(folder, learner, data) == error.fault
    assert replay(tmp_path, learner, Sometimes(Sinusoids(5, 5), share=0.0)) is None
    record = json.loads((error.folder / "meta.json").read_text())
    assert record["fault"]["trail"][-1]["key"] == list(error.fault.trail[-1].key)
    assert record["config"] == {"rate": 1}
    # the same run stops at the same place again, at once
    with pytest.raises(NonFinite) as again:
        train(learner, data, steps=500, seed=1, folder=tmp_path, config={"rate": 1})
    assert str(again.value) == text
    with pytest.raises(UserError, match="There is no file"):
        replay(tmp_path / "nothing", learner, data)
    with pytest.raises(UserError, match="not a reproducer"):
        replay(tmp_path / f"checkpoint-{step}", learner, data)


def test_a_runaway_rate(towers):
    learner, data = towers[1]
    wild = mt.lift(learner.objective.learner, mt.sgd(1e6), batch=2)
    with pytest.raises(NonFinite, match=r"at storey 1, step \d+ .*Try a lower rate") as caught:
        train(wild, data, steps=100, seed=0)
    assert caught.value.folder is None
    assert "Reproducer" not in str(caught.value)


def test_a_learner_of_ones_own(counter):
    learner = counter(bad_at=7)
    with pytest.raises(NonFinite, match=r"storey 0, step 7 .*leaf `best`") as caught:
        train(learner, None, steps=20, seed=0)
    assert caught.value.step == 7
    assert (caught.value.fault.what, caught.value.fault.leaf) == ("state", "best")


def test_trouble_in_the_replay_hides_nothing(counter):
    class Shy(counter):
        def stages(self, state, data, *, key):
            raise RuntimeError("not again")

    with pytest.raises(NonFinite, match=r"leaf `best`\. .*could not be done again: RuntimeError: not again"):
        train(Shy(bad_at=1), None, steps=3, seed=0)
