"""The page of the documentation that `benchmarks.meta_meta` writes."""

from typing import Any

from metatower.evaluation.comparison_page import METRICS, by_name, cell, columns, notes, splits_of, verdicts


def page(found: dict[str, Any]) -> str:
    """The page, from what is in `benchmarks/results/meta_meta.json`."""
    lines = [
        "# Four ways to learn how to learn, at equal compute",
        "",
        "Every family of meta-meta-learning and every baseline had the same number of floating-point operations to "
        "train with, and is judged by the same code on the same held-out distributions, after a run of K meta-steps on "
        "each. Means with 95 % intervals over distributions (the unit of replication). Written by `python -m "
        "benchmarks.meta_meta FOLDER...` from the folders of the commands below "
        "(`benchmarks/results/meta_meta.json`). What the families are is in `docs/when-it-helps.md`.",
    ]
    for name, about in found["comparisons"].items():
        rows = {which: [row for row in found[which] if row["families"] == name] for which in ("results", "paired")}
        lines += ["", *_section({**about, **rows})]
    return "\n".join([*lines, ""])


def _section(content: dict[str, Any]) -> list[str]:
    on = content["machine"]
    planned = f" (planned: {content['minutes']:g})" if "minutes" in content else ""
    lines = [
        f"## {content['families'].capitalize()}",
        "",
        f"`{content['command']}`, {content['seconds'] / 60:.0f} minutes{planned} on {on['cores']} cores ({on['cpu']}). "
        + " ".join([content["about"], *content["left-out"]]),
        "",
        *(f"- {each[0].upper()}{each[1:]}" for each in verdicts(content)),
    ]
    for split in splits_of(content):
        lines += ["", f"**{split.capitalize()}**", "", *_table(content, split)]
    return [*lines, "", "How exactly:", "", *(f"- {each}" for each in [*notes(content), *content["remarks"]])]


def _table(content: dict[str, Any], split: str) -> list[str]:
    names, families = columns(content), {row["name"] for row in content["paired"]}
    lines = [f"| | {' | '.join(METRICS[content['metric']][each] for each in names)} |", "|---|" + "---|" * len(names)]
    for name, row in by_name(content, split).items():
        shown = f"**{name}**" if name in families else name
        cells = [cell(row.get(each), content, ends=each.endswith("@K")) for each in names]
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return lines
