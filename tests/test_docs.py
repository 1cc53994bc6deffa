import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("page", ["README.md", "docs/all-of-metatower.md"])
def test_the_python_of_a_page_runs(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile("\n".join(blocks), page, "exec"), {})
    assert "storey 2" in out.getvalue()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_files_that_a_page_names_exist(page):
    text = (ROOT / page).read_text()
    places = [ROOT, ROOT / "src" / "metatower", ROOT / "docs"]
    for name in re.findall(
        r"`((?:docs|examples|learners|rules|gradients|recipes|tests|core|tasks|nets)/[\w./-]*)`", text
    ):
        assert any((place / name).exists() for place in places), name


def results(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def table_under(heading: str, page: str = "README.md") -> list[list[str]]:
    """The rows of the first table below a heading of a page, its head left out."""
    below = (ROOT / page).read_text().split(f"## {heading}\n")[1]
    lines = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert lines
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]


@pytest.mark.parametrize(
    ("name", "heading", "page"),
    [
        ("optimised-maml", "The main job", "README.md"),
        ("optimised-prototypical", "Storey 2 over a Prototypical Network", "docs/when-it-helps.md"),
    ],
)
def test_the_tables_of_main_job_and_prototypes_are_those_of_their_files(name, heading, page):
    found = results(name)
    rows = {row["name"]: row for row in found["results"] if row["metric"] == "accuracy"}
    paired = {row["against"]: row for row in found["paired"] if row["metric"] == "accuracy"}
    table = table_under(heading, page)
    ours = next(iter(rows.values()))["mean"]
    if page == "README.md":  # beside it stands a baseline of another run, on the same distributions
        others = {
            row["name"]: row for row in results("optimised-prototypical")["results"] if row["metric"] == "accuracy"
        }
        assert others["default MAML"] == rows["default MAML"]
        *table, (name, mean, between, better) = table
        row = others[name.split(" (")[0]]
        assert (mean, between) == (
            f"{100 * row['mean']:.1f}",
            "[{:.1f}, {:.1f}]".format(*(100 * x for x in row["ci95"])),
        )
        assert better == f"{100 * (ours - row['mean']):+.1f}"
    assert len(table) == len(rows)
    for name, mean, between, better in table:
        name = name.split(",")[0] if name.startswith("default") else name
        row = rows[name]
        lo, hi = row["ci95"]
        assert (mean, between) == (f"{100 * row['mean']:.1f}", f"[{100 * lo:.1f}, {100 * hi:.1f}]")
        if name in paired:
            lo, hi = paired[name]["ci95"]
            expected = f"{100 * paired[name]['difference']:+.1f} [{100 * lo:+.1f}, {100 * hi:+.1f}]"
            assert better == expected + ("" if lo > 0 else ": no gain here" if hi >= 0 else ": worse")


def test_the_seeds_of_the_main_job_are_those_of_their_files():
    text = (ROOT / "docs" / "when-it-helps.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "| `--seed" in line]
    files = ("optimised-maml", "optimised-maml-seed1", "optimised-maml-seed2", "optimised-maml-unclipped")
    assert len(rows) == len(files)
    rivals = ("pooled MAML + K", "storey 2 frozen at its start", "storey 2's rates shuffled", "pooled MAML + 5K")
    for name, row in zip(files, rows, strict=True):
        found = results(name)
        means = {each["name"]: each["mean"] for each in found["results"] if each["metric"] == "accuracy"}
        paired = {each["against"]: each for each in found["paired"] if each["metric"] == "accuracy"}
        assert row[1:3] == [f"{100 * means[each]:.1f}" for each in ("optimised MAML", "pooled MAML + K")]
        for said, rival in zip(row[3:7], rivals, strict=True):
            numbers = (paired[rival]["difference"], *paired[rival]["ci95"])
            shown = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * number for number in numbers)).replace("-", "−")
            assert said.split(":")[0] == shown
        beyond = found["along the run"]["series"]
        ends = [beyond[each]["mean"][-1] for each in ("optimised MAML", "pooled MAML + K")]
        assert row[7] == ", ".join(f"{100 * end:.1f}" for end in ends)


SPLITS = (" (fresh distributions)", " (held-out kinds)")


def test_the_table_of_seeds_on_functions_is_that_of_its_files():
    text = (ROOT / "docs" / "when-it-helps.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "| seed " in line]
    files = [f"optimised-maml-functions{end}" for end in ("", "-seed1", "-seed2", "-alike", "-unclipped")]
    assert len(rows) == len(files)
    for name, row in zip(files, rows, strict=True):
        found = results(name)
        means = {each["name"]: each["mean"] for each in found["results"]}
        paired = {each["against"]: each for each in found["paired"]}
        assert row[1] == ", ".join(f"{means['optimised MAML' + split]:.3f}" for split in SPLITS)
        for said, rival in zip(row[2:4], ("pooled MAML + K", "pooled MAML + 5K"), strict=True):
            shown = []
            for split in SPLITS:
                difference, mean = paired[rival + split], means[rival + split]
                assert difference["ci95"][1] < 0  # or the row has to say that there is no gain
                shown.append(f"{100 * difference['difference'] / mean:+.0f} %".replace("-", "−"))
            assert said == ", ".join(shown)
        shown = [f"1 / {means['default MAML' + split] / means['optimised MAML' + split]:.1f}" for split in SPLITS]
        assert row[4] == ", ".join(shown)


PLAIN = {
    "loss after 1 step": ("MAML, after 1 step", "pretrained on all waves, after 1 step (rate 0.03)", 1, 3),
    "loss after 5 steps": ("MAML, after 5 steps", "pretrained on all waves, after 5 steps (rate 0.03)", 1, 3),
    "accuracy in %": ("MAML", "nearest neighbour on pixels", 100, 1),
}
"""What a row of the README's table is called in its file, and the baseline beside it; scale and digits."""


def test_the_table_of_plain_maml_is_that_of_its_files():
    table = table_under("Plain MAML")
    assert len(table) == len(PLAIN)
    for what, mean, between, beside in table:
        recipe, label = what.split(", ")
        name, other, scale, digits = PLAIN[label]
        rows = {row["name"]: row for row in results(recipe)["results"] if row["metric"] == label.split()[0]}
        said = [f"{scale * number:.{digits}f}" for number in (rows[name]["mean"], *rows[name]["ci95"])]
        assert [mean, between] == [said[0], f"[{said[1]}, {said[2]}]"]
        assert beside.startswith(f"{scale * rows[other]['mean']:.{digits}f} {other.split(',')[0]}")


def test_the_table_of_learners_that_act_is_that_of_its_file():
    rows = results("meta_rl")["rows"]
    first = {row["setting"]: row for row in reversed(rows)}
    steps = {row["method"]: row for row in rows if row["setting"] == "navigation"}
    checked = 0
    for name, reached, between, _ in table_under("Learners that act"):
        if bandits := re.match(r"RL², bandits of (\d+) arms, (\d+) pulls", name):
            shown = [first["bandit-{1}-{0}".format(*bandits.groups())]]
        elif mdps := re.match(r"RL², MDPs, (\d+) episodes", name):
            shown = [first[f"mdp-{mdps[1]}"]]
        elif name.startswith("MAML, 2D navigation"):
            shown = [steps["MAML, after 1 step"], steps["MAML, after 3 steps"]]
        elif name.startswith("RL², arm"):
            shown = [first["arm"]]
        else:
            continue
        written = [x.replace("−", "-") for x in re.findall(r"−?[\d.]+", f"{reached} {between}")]
        wanted = [row["return"] for row in shown] + [bound for row in shown for bound in row["ci95"]]
        places = [len(x.partition(".")[2]) for x in written]
        assert written == [f"{x:.{n}f}" for x, n in zip(wanted, places, strict=True)], name
        checked += 1
    assert checked >= 10


FAMILIES = {"recurrent memory": "recurrent", "meta-GAN": "meta-gan", "hierarchical RL": "hierarchical"}
"""What the README calls families, and their file."""


def test_the_table_of_families_is_that_of_its_file():
    found, splits = results("meta_meta"), ("fresh distributions", "held-out kinds")
    rows = {(row["name"], row["split"]): row for row in found["results"] if row["metric"] == "loss@K"}
    best = {(row["name"], row["split"]): row for row in found["paired"] if row["against"] == "best-baseline"}
    table = table_under("Four ways to learn how to learn")
    assert len(table) == 7
    for first, *cells in table:
        words = first.replace("*", "").split(" (")[0]
        name = FAMILIES.get(words, words)
        for split, mean, gain in zip(splits, cells[::2], cells[1::2], strict=True):
            assert mean == f"{rows[name, split]['mean']:.{len(mean.partition('.')[2])}f}"
            if (name, split) in best:
                row = best[name, split]
                low, middle, high = (100 * np.expm1(x) for x in (row["ci95"][0], row["difference"], row["ci95"][1]))
                assert gain == f"{middle:.0f} % [{low:.0f}, {high:.0f}]".replace("-0]", "0]").replace("-", "−")
                assert high < 0  # or the row has to say that there is no gain


def test_the_tables_of_hierarchical_rl_are_those_of_its_file():
    text = (ROOT / "docs" / "when-it-helps.md").read_text().split("On functions with corrupted sources")[1]
    found = results("hierarchical-rl")
    means = {row["name"]: row["mean"] for row in found["results"]}
    ours = [name for name in means if name.startswith("hierarchical RL")]
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)[:2]
    losses, gains = ([line.strip("|").split("|") for line in each.splitlines()[2:]] for each in tables)
    for name, *said in losses:
        name = re.sub(r" \(the .*\)|, with the best.*|\*", "", name).strip()
        cells = [cell.strip() for cell in said if cell.strip()]
        wanted = [means[name + label.removeprefix("hierarchical RL")] for label in ours]
        places = [len(cell.partition(".")[2]) for cell in cells]
        assert cells == [f"{x:.{n}f}" for x, n in zip(wanted, places, strict=True)], name
    for name, *said in gains:
        name = {"its own start": "controller frozen at its start"}.get(name.strip(), name.strip())
        notes = [note for note in found["notes"] if note.startswith(f"hierarchical RL against {name}")]
        shown = []
        for note in notes:
            mean, middle = re.findall(r"([+-][\d.]+) %", note)
            (interval,) = re.findall(r"\[.*\]", note)
            shown.append(f"{middle} {interval} ({mean})")
        assert [cell.strip() for cell in said if cell.strip()] == shown
