"""The command line as a person meets it: its help, its complaints, and the files of a finished run."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

import metatower
from metatower.cli import main

TINY = ["maml-sinusoid", "--steps", "60", "--episodes", "20", "--hidden", "8", "--batch", "4", "--shots", "5"]


def said(capsys) -> str:
    """What went to standard error, as one line."""
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A small run, complete."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", *TINY, "--out", str(folder), "--progress", "silent"]) == 0
    return folder


class TestHelp:
    def test_overview(self, capsys):
        assert main([]) == 0
        overview = capsys.readouterr().out
        assert main(["--help"]) == 0
        assert capsys.readouterr().out == overview
        for command in ("train", "resume", "evaluate", "health", "report", "plan", "list", "compare"):
            assert f"\n  {command} " in overview

    @pytest.mark.parametrize(
        "command",
        ["train maml-sinusoid", "plan maml-sinusoid", "resume", "evaluate", "health", "report", "list", "compare"],
    )
    def test_every_command_teaches_with_examples(self, command, capsys):
        assert main([*command.split(), "--help"]) == 0
        text = capsys.readouterr().out
        assert "examples:\n" in text
        assert re.search(rf"^  metatower {command}", text, re.MULTILINE)

    def test_recipes_explain_their_options(self, capsys):
        main(["train", "maml-sinusoid", "--help"])
        text = capsys.readouterr().out
        assert "Finn, Abbeel & Levine" in text
        assert "Waves per meta-training step." in text

    def test_list(self, capsys):
        from metatower.recipes import RECIPES

        assert main(["list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == list(RECIPES)

    def test_version(self, capsys):
        assert main(["--version"]) == 0
        assert capsys.readouterr().out.strip() == metatower.__version__


class TestComplaints:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["trian"], "Did you mean `metatower train`?"),
            (["train", "maml-sinusiod"], "Did you mean maml-sinusoid?"),
            (["train", "rl2"], "Did you mean rl2-bandits or rl2-mdps or rl2-arm or rl2-gridnavi?"),
            (["train", "zzz"], "`metatower list` shows them all"),
            (["plan", "zzz"], "no recipe 'zzz'"),
            (["plan", "maml-sinusoid", "--memory", "much"], "such as 512MB or 2GB, got 'much'"),
            (["plan", "maml-sinusoid", "--memory", "1KB"], "No exact setting fits"),
            (["train", "--seed", "1", "maml-sinusoid"], "The recipe comes first"),
            (["train", "maml-sinusoid", "--stpes", "3"], "--steps"),
            (["train", "maml-sinusoid", "--steps", "many"], "--steps"),
            (["train", "maml-sinusoid", "--batch", "0"], "expected --batch of at least 1, got 0"),
            (["train", "maml-sinusoid", "--rate", "-1"], "expected --rate as a finite number, not negative, got -1.0"),
            (["train", "maml-sinusoid", "--seed", "-1"], "seed"),
            (["train", "maml-sinusoid", "--seed", "9" * 20], "expected --seed from 0 to 2**32 - 1"),
            (["train", "maml-sinusoid", "--stpes", "3"], "Perhaps you meant --steps. See `metatower train"),
            (["train", "maml-glyphs", "--ways", "100000"], "Expected at most 1739 ways"),
            (["train", "maml-glyphs", "--shots", "500"], "different drawings. Ask for fewer"),
            (["train", "maml-glyphs", "--size", "1"], "expected --size from 4 to 256 pixels, got 1"),
            (["train", "optimised-maml", "--size", "100000"], "expected --size from 4 to 256 pixels, got 100000"),
            (["train", "optimised-maml", "--fonts", "nowhere"], "nowhere, which is not a folder"),
            (["train", "optimised-maml-functions", "--steps", "0"], "steps of at least 1"),
            (["train", "prototypical", "--on", "cats"], "'omniglot', 'omniglot-alphabets', 'glyphs'"),
            (["evaluate", "here", "there"], "Unrecognized options: there. See `metatower evaluate --help`."),
            (["resume"], "required"),
            (["resume", "nowhere"], "There is no folder nowhere"),
            (["report", "nowhere"], "There is no folder nowhere"),
            (["evaluate", "nowhere"], "There is no folder nowhere"),
        ],
    )
    def test_one_sentence_and_nothing_written(self, arguments, words, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert main(arguments) == 2
        text = capsys.readouterr().err
        assert words in text
        assert text.startswith("metatower: ")
        assert text.count("\n") == 1
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_without_a_run(self, tmp_path, capsys):
        for command in ("resume", "report", "evaluate"):
            assert main([command, str(tmp_path)]) == 2
            assert "holds no run" in said(capsys)

    def test_a_folder_with_other_things(self, tmp_path, capsys):
        (tmp_path / "thesis.tex").write_text("dear")
        assert main(["train", *TINY, "--out", str(tmp_path)]) == 2
        assert "not empty" in said(capsys)
        assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]

    def test_a_file_where_the_folder_should_be(self, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        assert main(["train", *TINY, "--out", str(tmp_path / "file")]) == 2
        assert "not a folder" in said(capsys)
        assert main(["train", *TINY, "--out", str(tmp_path / "file" / "below")]) == 2
        assert "file" in said(capsys)

    @pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a file system that nobody can write to")
    def test_a_folder_that_cannot_be_written(self, capsys):
        assert main(["train", *TINY, "--out", "/proc/run"]) == 2
        assert "Cannot write /proc/run" in said(capsys)

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", "{}", '{"recipe": 3, "options": {}}', '{"recipe": "maml-sinusoid", "options": {"a": 1}}'],
    )
    def test_a_damaged_config(self, content, tmp_path, capsys):
        (tmp_path / "config.json").write_text(content)
        assert main(["resume", str(tmp_path)]) == 2
        text = said(capsys)
        assert text.startswith("metatower: ")
        assert "Traceback" not in text

    def test_a_recipe_of_another_version(self, tmp_path, capsys):
        (tmp_path / "config.json").write_text('{"recipe": "of-the-future", "options": {}}')
        assert main(["resume", str(tmp_path)]) == 2
        assert "no recipe 'of-the-future'" in said(capsys)


class TestARun:
    def test_its_files(self, finished):
        names = {each.name for each in finished.iterdir() if not each.name.startswith(".")}
        assert names >= {"config.json", "metrics.jsonl", "summary.json", "report.html", "model", "plots", "baselines"}
        assert {each.suffix for each in (finished / "plots").iterdir()} == {".svg", ".png"}
        assert {each.name for each in (finished / "model").iterdir()} == {"config.json", "model.safetensors"}
        config = json.loads((finished / "config.json").read_text())
        assert config["recipe"] == "maml-sinusoid"
        assert config["options"]["batch"] == 4
        assert "jax" in config["versions"]

    def test_its_summary(self, finished):
        summary = json.loads((finished / "summary.json").read_text())
        assert list(summary) == ["recipe", "seconds", "seed", "results", "paired"]
        for row in summary["results"]:
            assert list(row) == ["name", "metric", "mean", "ci95", "n", "unit"]
            assert row["ci95"][0] <= row["mean"] <= row["ci95"][1]
            assert (row["n"], row["unit"]) == (20, "task")
        for row in summary["paired"]:
            assert list(row) == ["name", "against", "metric", "difference", "ci95"]

    def test_a_finished_run_is_not_run_again(self, finished, capsys):
        before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
        for arguments in (["train", *TINY, "--out", str(finished)], ["resume", str(finished)]):
            assert main(arguments) == 0
            assert "finished already" in capsys.readouterr().out
        assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}

    def test_other_options_do_not_go_into_its_folder(self, finished, capsys):
        assert main(["train", *TINY, "--seed", "7", "--out", str(finished)]) == 2
        assert "seed = 0 (now 7)" in said(capsys)

    def test_an_unfinished_one_is_resumed_by_that_command_only(self, finished, tmp_path, capsys):
        (tmp_path / "config.json").write_bytes((finished / "config.json").read_bytes())
        assert main(["train", *TINY, "--out", str(tmp_path)]) == 2
        assert f"metatower resume {tmp_path}" in said(capsys)
        assert main(["report", str(tmp_path)]) == 2
        assert "not finished" in said(capsys)

    def test_report_draws_it_again(self, finished, capsys):
        page = finished / "report.html"
        before = page.read_bytes()
        (finished / "plots" / "adaptation.png").unlink()
        page.unlink()
        assert main(["report", str(finished)]) == 0
        assert page.read_bytes() == before
        assert (finished / "plots" / "adaptation.png").exists()

    def test_its_learner_loads(self, finished, tmp_path):
        import equinox as eqx
        import jax
        import numpy as np

        from metatower.tasks.functions import Sinusoids

        learner = metatower.load(finished)
        task = Sinusoids(5, 5).sample(jax.random.key(1))
        state = learner.adapt(task.support, key=jax.random.key(2))
        loss, _ = learner.loss(state, task.query, key=jax.random.key(3))
        assert np.isfinite(float(loss))
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).write_bytes((finished / "model" / name).read_bytes())
        copied = metatower.load(tmp_path)
        assert eqx.tree_equal(copied, learner)

    def test_options_that_were_changed_afterwards_are_refused(self, finished, tmp_path, capsys):
        copied = tmp_path / "run"
        shutil.copytree(finished, copied)
        for config, command in (("config.json", "resume"), ("model/config.json", "evaluate")):
            whole = (copied / config).read_text()
            changed = json.loads(whole)
            changed["options"]["inner_rate"] = 0.5
            (copied / config).write_text(json.dumps(changed))
            assert main([command, str(copied)]) == 2
            assert ("model differ" if command == "resume" else "was changed since") in said(capsys)
            (copied / config).write_text(whole)

    def test_a_damaged_model_is_refused(self, finished, tmp_path, capsys):
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).write_bytes((finished / "model" / name).read_bytes())
        whole = (tmp_path / "model.safetensors").read_bytes()
        for damage in (whole[:-7], b"", b"\x80\x04K\x01.", whole[:-1] + bytes([whole[-1] ^ 1])):
            (tmp_path / "model.safetensors").write_bytes(damage)
            assert main(["evaluate", str(tmp_path)]) == 2
            assert "model.safetensors" in said(capsys)


def test_sigterm_while_judging_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    from metatower.recipes import find

    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(find(TINY[0]), "conclude", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert main(["train", *TINY, "--out", str(folder), "--progress", "silent"]) == 130
    assert f"metatower resume {folder}" in said(capsys)
    assert not (folder / "summary.json").exists()
    assert main(["resume", str(folder), "--progress", "silent"]) == 0
