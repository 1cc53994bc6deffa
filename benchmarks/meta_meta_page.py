"""The page of the documentation that `benchmarks.meta_meta` writes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metatower.evaluation.comparison import BEST

KINDS = {"loss": "log-loss", "accuracy": "accuracy"}
"""What is paired, by the metric that decides."""


def page(found: dict[str, Any]) -> str:
    """The page, from what is in `benchmarks/results/meta_meta.json`."""
    lines = [
        "# Four ways to learn how to learn, at equal compute",
        "",
        "Every family of meta-meta-learning and every baseline had the same number of floating-point operations to "
        "train with, and is judged by the same code on the same held-out distributions. Means with 95 % intervals over "
        "distributions (the unit of replication), by bootstrap. K meta-steps on a new distribution; *area* is the mean "
        "along the run from 0 to K; *speed-up* is K over the meta-steps until tuned pooled MAML's result at K on the "
        "same distribution is reached, 0 where it never is, its interquartile mean. The last column is paired: against "
        "the best of the baselines at equal compute, the family's own ablations among them (pooled MAML + 5K has five "
        "times the meta-steps, and is shown only). Percentages are ratios of geometric means.",
        "",
        "Written by `python -m benchmarks.meta_meta FOLDER...` from the folders of the commands below "
        "(`benchmarks/results/meta_meta.json`). What the families are is in `docs/when-it-helps.md`.",
    ]
    for name, about in found["comparisons"].items():
        lines += ["", *_section(name, about, found)]
    return "\n".join([*lines, ""])


def _section(name: str, about: dict[str, Any], found: dict[str, Any]) -> list[str]:
    results = [row for row in found["results"] if row["families"] == name]
    pairs = [row for row in found["paired"] if row["families"] == name]
    metric, planned = about["metric"], about["planned"]
    steps = ", ".join(f"{each} {count:,}" for each, count in planned["steps"].items())
    lines = [
        f"## {name.capitalize()}",
        "",
        f"`{about['command']}`, {about['seconds'] / 60:.0f} minutes on {about['machine']['cores']} cores "
        f"({about['machine']['cpu']}). {about['about']}",
        "",
        f"Storey-2 steps: {steps}; pooled MAML {planned['pooled_total']:,} steps, random search "
        f"{planned['searched']:,} candidates. {planned['flops']:.2g} floating-point operations each. "
        f"Seeds: {results[0]['seeds']}. " + " ".join([*about["notes"], *about["left-out"]]),
    ]
    for split in dict.fromkeys(row["split"] for row in results):
        here = [row for row in results if row["split"] == split]
        said = {row["name"]: row for row in pairs if row["split"] == split and _decides(row, metric)}
        lines += ["", *_table(split, here, said, about, metric)]
    return lines


def _decides(row: dict[str, Any], metric: str) -> bool:
    return row["against"] == BEST and row["metric"] == KINDS[metric]


def _table(split: str, rows: Sequence[dict], said: dict[str, dict], about: dict[str, Any], metric: str) -> list[str]:
    unit, number = (", %", 100) if metric == "accuracy" else ("", 1)
    count = max(row["n"] for row in rows)
    lines = [
        f"**{split.capitalize()}**, {count} distributions",
        "",
        f"| | {metric} at 0{unit} | at K{unit} | at 10 K{unit} | area | speed-up | against the best baseline |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        of = {row["metric"]: row for row in rows if row["name"] == name}
        cells = [
            _number(of.get(f"{metric}@0"), number),
            _number(of.get(f"{metric}@K"), number, interval=True),
            _number(of.get(f"{metric}@10K"), number),
            _number(of.get("area"), number),
            _number(of.get("speed-up")),
            _against(said[name], about["best-baseline"][f"{name}, {split}"], metric) if name in said else "",
        ]
        shown = f"**{name}**" if name in said else name
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return lines


def _number(row: dict[str, Any] | None, by: float = 1, *, interval: bool = False) -> str:
    if row is None:
        return ""
    mean, (lo, hi) = by * row["mean"], (by * each for each in row["ci95"])
    return f"{mean:.3g} [{lo:.3g}, {hi:.3g}]" if interval else f"{mean:.3g}"


def _against(row: dict[str, Any], best: str, metric: str) -> str:
    mean, lo, hi = row["difference"], *row["ci95"]
    if metric == "accuracy":
        better, words = lo > 0, f"{100 * mean:+.1f} points [{100 * lo:+.1f}, {100 * hi:+.1f}]"
    else:
        change, low, high = (100 * np.expm1(each) for each in (mean, lo, hi))
        better, words = hi < 0, f"{change:+.0f} % [{low:+.0f}, {high:+.0f}]"
    return f"{words}{'' if better else ': no gain here'} ({best})"
