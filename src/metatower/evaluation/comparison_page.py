"""The page of `metatower compare`: one HTML file for a newcomer, and the table for a terminal."""

import html
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from metatower.evaluation import plots, report
from metatower.evaluation.comparison import BEST, Measured
from metatower.evaluation.conclusion import Curves, Paired
from metatower.evaluation.statistics import Interval, hierarchical
from metatower.training.files import clean, make_folder, write_bytes, write_text

PAGE = "comparison.html"
METRICS = {
    "loss": {
        "loss@0": "loss before the run",
        "loss@K": "loss after K meta-steps",
        "loss@10K": "after 10 K",
        "area": "mean along the run",
        "speed-up": "speed-up",
        "accuracy@K": "accuracy after K",
    },
    "accuracy": {
        "accuracy@0": "accuracy before the run",
        "accuracy@K": "accuracy after K meta-steps (%)",
        "accuracy@10K": "after 10 K",
        "area": "mean along the run",
        "speed-up": "speed-up",
        "loss@K": "loss after K",
    },
}
"""The columns of the table, by what decides."""
DECIDES = {"loss": "log-loss", "accuracy": "accuracy"}
"""What the paired differences are of, by what decides."""
BASELINES = {
    "default MAML": "MAML as one would first try it: fresh weights, inner rate 0.01, Adam at 0.001. Untuned.",
    "MAML, rates from random search": "MAML from fresh weights, its inner and outer rate found by as much random "
    "search as the families have training.",
    "pooled MAML": "MAML trained on tasks of all training distributions mixed, used as it is: no run on the new one.",
    "pooled MAML + K": "the same, then K meta-steps on the new distribution, at the best outer rate and momentum. This "
    "is “tuned MAML”, which speed-ups refer to.",
    "pooled MAML + 5K": "the same with five times as many meta-steps. It has more compute on the new distribution than "
    "all others, and is shown for scale.",
    "pooled MAML + K, tuned schedule": "the same as + K, with an outer rate that may rise or fall along the run.",
    "Prototypical Network, pooled": "features whose class means are compared, trained on all training distributions "
    "mixed. No gradient step on a task, and no run on the new distribution.",
    "Prototypical Network, pooled + K": "the same, whose features then take K meta-steps on the new distribution, at "
    "the best outer rate and momentum.",
    "ridge head, pooled": "features, and ridge regression from them to the labels (R2D2), likewise.",
    "ridge head, pooled + K": "the same, whose features then take K meta-steps on the new distribution, likewise.",
    "storey 2 frozen at its start": "what the family sets out from, without its own training.",
    "shuffled": "what the family has learned, put in the wrong places: if that is as good, it has learned nothing.",
}
UNEVEN = 0.05
"""Relative difference in operations from which trainings are not said to be equal in compute."""
FEW = 50
"""Steps of storey 2 below which a verdict says how few they were."""
SHOWN = 5
"""Baselines beside the families in a plot."""


def by_name(content: dict[str, Any], split: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The results of a split, by name and metric."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in content["results"]:
        if row["split"] == split:
            found.setdefault(row["name"], {})[row["metric"]] = row
    return found


def splits_of(content: dict[str, Any]) -> list[str]:
    """The kinds of held-out distributions."""
    return list(dict.fromkeys(row["split"] for row in content["results"]))


def verdicts(content: dict[str, Any]) -> list[str]:
    """One sentence for each family and split: against the best of its baselines."""
    out = []
    for row in content["paired"]:
        if row["against"] == BEST and row["metric"] == DECIDES[content["metric"]]:
            best = content["best-baseline"][f"{row['name']}, {row['split']}"]
            said = _verdict((row["difference"], *row["ci95"]), content["metric"])
            if (steps := content["planned"]["steps"].get(row["name"], FEW)) < FEW:
                said += f" (after {report.plural(steps, 'storey-2 step')} only: too few to judge it by)"
            out.append(f"{row['name']}, {row['split']}: {said}, against the best of its baselines, {best}.")
    return out


def _verdict(difference: tuple[float | None, ...], metric: str) -> str:
    """What a mean difference with its two bounds says."""
    numbers = [each for each in difference if each is not None]
    if len(numbers) < len(difference):
        return "cannot be compared (a value is not finite): no gain here"
    unit, digits = ("points", 1) if metric == "accuracy" else ("%", 0)
    mean, low, high = (100 * x if metric == "accuracy" else 100 * (np.exp(x) - 1) for x in numbers)
    if low <= 0 <= high:
        return f"differs by {mean:+.{digits}f} {unit} [{low:+.{digits}f}, {high:+.{digits}f}]: no gain here"
    size = f"{abs(mean):.{digits}f} {unit}"
    near, far = sorted((abs(low), abs(high)))
    gained = (mean > 0) == (metric == "accuracy")
    said = f"has {size} {'more' if mean > 0 else 'less'} {metric} [{near:.{digits}f}, {far:.{digits}f}]"
    return said if gained else f"{said}: worse"


def columns(content: dict[str, Any]) -> list[str]:
    """Those of `METRICS` that there is something of."""
    return [m for m in METRICS[content["metric"]] if any(row["metric"] == m for row in content["results"])]


def cell(row: dict[str, Any] | None, content: dict[str, Any], ends: bool = True) -> str:
    """Mean and interval; the mean alone if not `ends`."""
    if row is None:
        return "–"
    metric = content["metric"] if row["metric"] == "area" else row["metric"].split("@")[0]
    if not ends:
        return report.number(row["mean"], metric)
    return f"{report.number(row['mean'], metric)} {report.bounds(tuple(row['ci95']), metric)}"


def notes(content: dict[str, Any]) -> list[str]:
    """How exactly it was compared, in sentences."""
    planned, seeds = content["planned"], content["results"][0]["seeds"]
    shares = {name: spent / planned["flops"] for name, spent in planned.get("spent", {}).items()}
    uneven = [f"{name} {share:.2g} times that" for name, share in shares.items() if abs(share - 1) > UNEVEN]
    return [
        f"Each training had the same number of floating-point operations, {planned['flops']:.2g}, its start included"
        + f" (but {', '.join(uneven)}: no equal compute)" * bool(uneven)
        + ": "
        + ", ".join(f"{steps:,} storey-2 steps for {name}" for name, steps in planned["steps"].items())
        + f"; {planned['pooled_total']:,} steps for pooled MAML, {planned['searched']:,} candidates for random search, "
        f"each on {planned['tuned_on']} distributions. The families set out from pooled MAML after "
        f"{planned['pooled_steps']:,} steps."
        + "".join(f" {name}: {steps:,} steps." for name, steps in planned["heads"].items()),
        f"Judged on {planned['episodes']} distributions of each kind for each training seed "
        f"({report.plural(seeds, 'seed')}), each by {planned['judged']} tasks of a pool that shares no task with the "
        f"one that was learned from (10 K: on the first {planned['far']}).",
        "Intervals: hierarchical bootstrap over seeds and, within them, distributions; tasks are averaged before. With "
        "one seed they say nothing of other training runs. Differences are paired, distribution by distribution.",
        f"The speed-up is K over the meta-steps until the {content['metric']} is what tuned MAML has after K, as the "
        "mean of the middle half of the distributions; a run that does not get there within K counts as 0. As curves "
        "go up and down, tuned MAML itself has more than 1 by this.",
        "Rates and schedules of the baselines were chosen on validation distributions, none on those judged on.",
        *content["notes"],
    ]


def show(content: dict[str, Any], console: Console | None = None) -> None:
    """Prints one table, and who has won."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 140)
    names, metrics = list(by_name(content, splits_of(content)[0])), columns(content)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
    for split in splits_of(content):
        rows = by_name(content, split)
        table.add_row(f"[bold]{split}[/]")
        for name in names:
            cells = (cell(rows[name].get(m), content, ends=m in ("loss@K", "accuracy@K")) for m in metrics)
            table.add_row(f"  {name}", *cells)
    console.print(table)
    console.print()
    for sentence in verdicts(content):
        console.print(sentence, markup=False, highlight=False)


def write(
    folder: Path,
    content: dict[str, Any],
    measured: dict[tuple[str, str], Measured],
    parents: dict[str, str],
    words: dict[str, str],
) -> Path:
    """Writes `comparison.html`, which needs nothing else, and its figures to `plots/`.

    Args:
        folder: of the comparison.
        content: what `comparison.json` holds.
        measured: by name and split.
        parents: the family that a contestant belongs to, for those that belong to one.
        words: what each family is.
    """
    figures = {}
    for split in splits_of(content):
        figures[f"runs-{split.replace(' ', '-')}"] = _curves(split, measured, parents, content)
    drawn = {name: plots.draw(each) for name, each in figures.items()}
    captions = {name: each.caption for name, each in figures.items()}
    for split in splits_of(content):
        name = f"differences-{split.replace(' ', '-')}"
        pairs = [_paired(row) for row in content["paired"] if row["split"] == split and row["against"] != BEST]
        drawn[name] = plots.differences(pairs, DECIDES[content["metric"]])
        by_loss = content["metric"] == "loss"
        captions[name] = (
            f"{split.capitalize()}: the {'logarithm of the loss' if by_loss else 'accuracy'}, each family minus each "
            f"of its baselines on the same distributions. {'−0.1 is about 10 % less loss. ' * by_loss}Green: a gain."
        )
    clean(make_folder(folder / "plots"))
    for name, figure in drawn.items():
        for kind in ("svg", "png"):
            write_bytes(folder / "plots" / f"{name}.{kind}", plots.save(figure, kind))
    shown = "".join(
        f"<figure>{plots.as_html(figure)}<figcaption>{_text(captions[name])}</figcaption></figure>"
        for name, figure in drawn.items()
    )
    write_text(folder / PAGE, _page(content, words, shown))
    return folder / PAGE


def _curves(split: str, measured: dict[tuple[str, str], Measured], parents: dict[str, str], content: dict) -> Curves:
    whole = {name: each for (name, where), each in measured.items() if where == split and each.whole}
    ours = [name for name in whole if parents.get(name) == name]
    usual = [name for name in whole if name not in parents][:SHOWN]
    series, metric = {}, content["metric"]
    for name in [*ours, *usual]:
        curve = whole[name].curves[metric]
        points = [hierarchical(curve[..., i], resamples=2000) for i in range(curve.shape[-1])]
        mean, lo, hi = np.array([(p.mean, p.lo, p.hi) for p in points]).T
        series[name] = Interval(mean, lo, hi, points[0].n)
    return Curves(
        f"Runs on {split}: the {metric} on fresh tasks of a distribution after every meta-step on it (for a memory: "
        f"after as many tasks). Means over {next(iter(series.values())).n} distributions, with 95 % intervals.",
        "meta-steps on the new distribution",
        metric,
        series,
        log=metric == "loss",
    )


def _page(content: dict[str, Any], words: dict[str, str], figures: str) -> str:
    splits, seeds = splits_of(content), content["results"][0]["seeds"]
    sentences = "".join(f"<li>{_text(each)}</li>" for each in verdicts(content))
    family_rows = "".join(
        f"<tr><td><b>{_text(name)}</b></td><td>{_text(each)}</td></tr>" for name, each in words.items()
    )
    names = list(by_name(content, splits[0]))
    there = [name for name in BASELINES if any(name in each for each in names)]
    baseline_rows = "".join(f"<tr><td><b>{_text(n)}</b></td><td>{_text(BASELINES[n])}</td></tr>" for n in there)
    better = "Less loss" if content["metric"] == "loss" else "More accuracy"
    absent = "".join(f"<p>{_text(each)}</p>" for each in content["left-out"])
    listed = "".join(f"<li>{_text(each)}</li>" for each in notes(content))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Meta-meta-learning compared · metatower</title><style>{report.CSS}main{{max-width:1000px}}</style></head>
<body><main>
<header><p class="small">metatower · comparison on {_text(content["families"])}</p>
<h1>Which way of learning how to learn is best?</h1>
<p class="lead">A learner that has learned <em>how to learn</em> meets a kind of task that it has never seen. How good
is it after a few steps there, and is it better than plain meta-learning with as much compute?</p>
<p class="small">{report.plural(seeds, "seed")} · {content["seconds"]:.0f} s in all</p></header>
<section><h2>Who wins</h2><ul>{sentences}</ul></section>
<section><h2>What was tried</h2>
<p>Meta-learning trains on many tasks so that a new <em>task</em> is learned from a few examples. Here we are one storey
higher: training is on many <em>distributions</em> of tasks, so that on a new distribution a short run of K =
{content["meta_steps"]} meta-steps goes far. Everything below is judged after such a run on held-out distributions.</p>
<p>{_text(content["about"])}</p>
<table>{family_rows}</table>{absent}<h2>What they have to beat</h2><table>{baseline_rows}</table></section>
<section><h2>The table</h2>{"".join(_table(content, split) for split in splits)}
<p class="small">Mean with its 95 % interval. {better} is better; more speed-up is better. “–”: has no meaning there.
</p></section>
<section><h2>Curves</h2>{figures}</section>
<section><h2>Is it better? Every pair</h2>{"".join(_pairs(content, split) for split in splits)}</section>
<section><h2>How exactly</h2><ul>{listed}</ul><pre>{_text(content["command"])}</pre></section>
</main></body></html>
"""


def _table(content: dict[str, Any], split: str) -> str:
    rows, metrics = by_name(content, split), columns(content)
    head = "".join(f"<th class=n>{_text(METRICS[content['metric']][m])}</th>" for m in metrics)
    families = {row["name"] for row in content["paired"]}
    body = "".join(
        f"<tr{' class=first' if name in families else ''}><td>{_text(name)}</td>"
        + "".join(f"<td class=n>{_text(cell(found.get(m), content))}</td>" for m in metrics)
        + "</tr>"
        for name, found in rows.items()
    )
    return f"<h3>{_text(split)}</h3><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _pairs(content: dict[str, Any], split: str) -> str:
    lines = []
    for row in content["paired"]:
        if row["split"] == split:
            pair = _paired(row)
            against = pair.against
            if against == BEST:
                against = f"best baseline: {content['best-baseline'][f'{pair.name}, {split}']}"
            lines.append(
                f"<tr><td>{_text(pair.name)}<br><span class=small>against {_text(against)}</span></td>"
                f"<td>{html.escape(pair.metric)}</td><td class=n>{report.number(pair.difference, pair.metric)}</td>"
                f"<td class=n>{report.bounds(pair.ci95, pair.metric)}</td>"
                f"<td class={'gain' if pair.gain else 'none'}>{html.escape(pair.verdict)}</td></tr>"
            )
    return (
        f"<h3>{_text(split)}</h3><table><thead><tr><th></th><th>of</th><th class=n>difference</th>"
        f"<th class=n>95 % interval</th><th></th></tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _paired(row: dict[str, Any]) -> Paired:
    numbers = [np.nan if each is None else each for each in (row["difference"], *row["ci95"])]
    return Paired(row["name"], row["against"], row["metric"], numbers[0], (numbers[1], numbers[2]))


def _text(text: str) -> str:
    return html.escape(text, quote=False)
