import io
import sys

import pytest

from metatower.training import progress
from metatower.training import progress as factory
from metatower.training.progress import Plain, Rich, Silent, _duration, _rate


def test_plain_lines_are_few_and_end_with_the_last():
    out = io.StringIO()
    show = Plain(out, every=1000.0)
    show.start("maml", 100, 20)
    for _ in range(8):
        show.advance(10, loss=0.51234, accuracy=0.8)
    show.finish()
    show.finish()
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0] == "maml  30/100  loss 0.5123  accuracy 80.0%"
    assert lines[1].startswith("maml  100/100  ")
    assert "steps/s" in lines[1]


def test_plain_says_how_far_an_unfinished_job_came():
    out = io.StringIO()
    show = Plain(out, every=1000.0)
    show.start("a", 10)
    show.advance(1)
    show.advance(2)
    show.note("stopping")
    show.finish()
    assert [line.split("  ")[:2] for line in out.getvalue().splitlines()] == [
        ["a", "1/10"],
        ["stopping"],
        ["a", "3/10"],
    ]


def test_rich_draws_a_bar(capsys):
    show = progress("rich")
    assert isinstance(show, Rich)
    show.note("[before]")
    show.start("[maml]", 4)
    show.advance(2, loss=1.0)
    show.note("[between]")
    show.advance(2, loss=0.5)
    show.finish()
    show.finish()
    said = capsys.readouterr()
    assert said.out == ""
    for text in ("[before]", "[between]", "[maml]", "4/4", "loss 0.5"):
        assert text in said.err


def test_silent(capsys):
    show = factory("silent")
    assert isinstance(show, Silent)
    show.start("a", 1)
    show.advance(1, loss=0.0)
    show.note("b")
    show.finish()
    assert capsys.readouterr() == ("", "")


def test_auto(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(progress(), Rich)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert isinstance(progress(), Plain)
    with pytest.raises(ValueError, match="expected one of auto, rich, plain, silent, got 'loud'"):
        progress("loud")


def test_words():
    assert [_duration(s) for s in (0.2, 61.0, 3601.0)] == ["0:00", "1:01", "1:00:01"]
    assert [_rate(r) for r in (0.25, 2.5, 1234.0)] == ["4.0 s/step", "2.5 steps/s", "1234 steps/s"]
