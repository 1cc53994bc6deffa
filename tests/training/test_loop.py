import os
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.core.errors import UserError
from metatower.training import Interrupted, Progress, checkpoint, loop, records, train
from metatower.training.loop import compile_ahead
from metatower.training.start import own, step_key


def same(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(numbers(a), numbers(b)) and a.dtype == b.dtype for a, b in pairs)


def numbers(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


class Recorder(Progress):
    def __init__(self):
        self.heard = []

    def start(self, title, total, done=0):
        self.heard.append(("start", title, total, done))

    def advance(self, n, **numbers):
        self.heard.append(("advance", n, numbers))

    def note(self, text):
        self.heard.append(("note", text))

    def finish(self):
        self.heard.append(("finish",))


def test_any_height(towers, quick_compile):
    learner, data = towers[2]
    assert learner.height == 2
    show = Recorder()
    trained = train(learner, data, steps=2, seed=0, show=show)
    assert [each[1] for each in show.heard if each[0] == "advance"] == [1, 1]
    assert not same(trained.leaves, learner.start(key=step_key(0, 0)).leaves)


@pytest.mark.parametrize("height", [0, 1])
def test_is_running_update_with_the_keys_it_says(towers, height):
    learner, data = towers[height]
    assert learner.height == height
    state = own(learner.start(key=step_key(3, 2**32 - 1)))
    losses = []
    update = jax.jit(lambda state, key: learner.update(state, data, key=key))
    for i in range(3):
        state, metrics = update(state, step_key(3, i))
        losses.append(float(metrics["loss"]))
    show = Recorder()
    trained = train(learner, data, steps=3, seed=3, show=show, title="t")
    for one, other in zip(jax.tree.leaves(trained), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert show.heard[0] == ("start", "t", 3, 0)
    assert show.heard[-1] == ("finish",)
    assert sum(each[1] for each in show.heard if each[0] == "advance") == 3
    np.testing.assert_allclose(show.heard[1][2]["loss"], losses[0], rtol=1e-5)


def test_learners_without_gradients_typed_keys_and_python_numbers(counter):
    state = train(counter(), None, steps=5, seed=0)
    assert int(state["count"]) == 5
    assert same(state["key"], step_key(0, 4))
    assert float(state["best"]) == 1.0


def test_bits_do_not_depend_on_the_length_of_chunks_or_on_company(towers, monkeypatch, tmp_path):
    learner, data = towers[1]
    whole = train(learner, data, steps=40, seed=1)
    monkeypatch.setattr(loop, "_next_count", lambda count, seconds: 7)
    assert same(whole, train(learner, data, steps=40, seed=1, folder=tmp_path / "a", checkpoint_every_seconds=0.0))
    monkeypatch.setattr(loop, "_next_count", lambda count, seconds: 1024)
    assert same(whole, train(learner, data, steps=40, seed=1, folder=tmp_path / "b"))
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (tmp_path / "b/metrics.jsonl").read_bytes()
    assert not same(whole, train(learner, data, steps=40, seed=2))


def test_compiled_once(towers, counter):
    traced = 0

    class Traced(counter):
        def step(self, state, data, *, key):
            nonlocal traced
            traced += 1
            return super().step(state, data, key=key)

    for seed in (0, 1):
        for data in (jnp.zeros(3), jnp.ones(3)):
            train(Traced(), data, steps=20, seed=seed)
    assert traced == 1
    # the learner's own arrays are arguments, not constants of the program, and are not given away
    learner, data = towers[1]
    before = jax.tree.leaves(learner)[0] + 0
    train(learner, data, steps=2, seed=0)
    assert same(jax.tree.leaves(learner)[0], before)


def test_what_is_compiled_ahead_is_not_compiled_again(towers):
    learner, data = towers[2]
    compile_ahead(learner, data)
    programs = loop._advance._cached._cache_size()
    after = train(learner, data, steps=2, seed=7)
    assert loop._advance._cached._cache_size() == programs
    assert same(after, train(learner, data, steps=2, seed=7))


def test_continues_a_longer_run_and_refuses_another(towers, tmp_path):
    learner, data = towers[1]
    straight = train(learner, data, steps=30, seed=0, folder=tmp_path / "straight", config={"rate": 0.1})
    run = tmp_path / "run"
    train(learner, data, steps=10, seed=0, folder=run, config={"rate": 0.1})
    assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-10"]
    # as a killed run leaves it: lines beyond the checkpoint, half a line, half a checkpoint
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 11, "loss": 3.0}\n{"step": 12, "lo')
    (run / ".checkpoint-20.tmp-1").mkdir()
    (run / ".checkpoint-20.tmp-1/state.safetensors").write_bytes(b"half")
    assert same(straight, train(learner, data, steps=30, seed=0, folder=run, config={"rate": 0.1}))
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint-10", "checkpoint-30", "metrics.jsonl"]
    straight_bytes = (tmp_path / "straight/metrics.jsonl").read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == straight_bytes
    assert len(records.read(run / "metrics.jsonl")) == 30
    # finished: at once, the same
    assert same(straight, train(learner, data, steps=30, seed=0, folder=run, config={"rate": 0.1}))
    with pytest.raises(UserError, match=r"rate was 0\.1, now 0\.2"):
        train(learner, data, steps=30, seed=0, folder=run, config={"rate": 0.2})
    with pytest.raises(UserError, match="seed 0, but seed 1"):
        train(learner, data, steps=30, seed=1, folder=run, config={"rate": 0.1})
    with pytest.raises(UserError, match="already holds step 30"):
        train(learner, data, steps=20, seed=0, folder=run, config={"rate": 0.1})
    with pytest.raises(UserError, match="other arrays than expected"):
        train(towers[0][0], towers[0][1], steps=30, seed=0, folder=run, config={"rate": 0.1})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(towers, tmp_path, number):
    learner, data = towers[1]

    class Press(Recorder):
        def advance(self, n, **numbers):
            super().advance(n)
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    show = Press()
    with pytest.raises(Interrupted) as caught:
        train(learner, data, steps=500, seed=0, folder=tmp_path, show=show)
    assert signal.getsignal(number) is before
    assert caught.value.folder == tmp_path
    assert 0 < caught.value.step < 500
    assert (tmp_path / f"checkpoint-{caught.value.step}").is_dir()
    assert any(each[0] == "note" and "Stopping" in each[1] for each in show.heard)
    assert show.heard[-1] == ("finish",)
    assert same(train(learner, data, steps=500, seed=0, folder=tmp_path), train(learner, data, steps=500, seed=0))


def test_a_signal_while_the_last_state_is_written_is_heard(counter, tmp_path, monkeypatch):
    save = checkpoint.save

    def pressed(*given, **named):
        os.kill(os.getpid(), signal.SIGINT)
        save(*given, **named)

    monkeypatch.setattr(checkpoint, "save", pressed)
    with pytest.raises(Interrupted) as caught:
        train(counter(), None, steps=3, seed=0, folder=tmp_path)
    assert caught.value.step == 3
    assert (tmp_path / "checkpoint-3").is_dir()


def test_runs_in_another_thread(towers):
    learner, data = towers[1]
    result = []
    thread = threading.Thread(target=lambda: result.append(train(learner, data, steps=2, seed=0)))
    thread.start()
    thread.join()
    assert same(result[0], train(learner, data, steps=2, seed=0))


def test_one_process_at_a_time(counter, tmp_path):
    class Second(Recorder):
        def advance(self, n, **numbers):
            with pytest.raises(UserError, match="Another process"):
                train(counter(), None, steps=3, seed=0, folder=tmp_path)
            self.heard.append("refused")

    show = Second()
    train(counter(), None, steps=2, seed=0, folder=tmp_path, show=show)
    assert "refused" in show.heard


def test_refuses_nonsense(counter):
    for wrong in ({"steps": -1, "seed": 0}, {"steps": 1, "seed": -1}, {"steps": 1, "seed": 2**32}):
        with pytest.raises(UserError, match="expected"):
            train(counter(), None, **wrong)

    class Grows(counter):
        def step(self, state, data, *, key):
            return {**state, "count": state["count"] + 0.5}

    with pytest.raises(TypeError, match=r"state\['count'\]. was int32 \[\] and became float32 \[\]"):
        train(Grows(), None, steps=1, seed=0)


def test_lines_are_few_and_a_function_of_the_step():
    for steps in (1, 10, 1000, 1001, 2500, 123_456):
        logged = [step for step in range(1, steps + 1) if records.is_logged(step, steps)]
        assert logged[0] == 1
        assert logged[-1] == steps
        assert min(steps, 500) <= len(logged) <= 1002
    assert all(records.is_logged(step, 1000) for step in range(1, 1001))


def test_shortest_numbers():
    assert records.shortest(np.float32(0.1)) == 0.1
    assert records.shortest(np.arange(2, dtype=np.int32)) == [0, 1]
    assert np.float32(records.shortest(np.float32(1 / 3))) == np.float32(1 / 3)
