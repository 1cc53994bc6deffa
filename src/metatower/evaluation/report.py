"""The report of a run: its plots as files, and one HTML page that needs nothing else."""

import html
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from metatower.core.errors import UserError, resume_command
from metatower.evaluation import plots
from metatower.evaluation.conclusion import Conclusion, Paired, Result
from metatower.evaluation.gradient_health import Health
from metatower.evaluation.statistics import HIGHER_IS_BETTER, SHARES
from metatower.training import records
from metatower.training.files import clean, make_folder, new_folder, read_json, write_bytes, write_text

DIAGNOSIS = "diagnosis.json"
"""What `metatower diagnose` found, in a run's folder."""
HEALTH = "health.json"
"""What `metatower health` found, in a run's folder or one of its own."""
_CAPTIONS = {
    "learning": "Learning: what the run measured of itself while it trained (faint: single steps; strong: running "
    "mean). These numbers are of training tasks; the table above is of tasks, or distributions, never trained on.",
    "results": "The table as a picture: means with 95 % intervals.",
    "differences": "Differences on the same units. An interval that touches zero, or lies on the wrong side of it, is "
    "no gain.",
}


def draw(folder: Path) -> dict[str, Figure]:
    """The figures of a run that has been judged, which it also writes to `plots/*.svg` and `*.png`.

    Args:
        folder: with `conclusion.json`, and `metrics.jsonl` if there is one, in it.

    Raises:
        UserError: a file is missing or damaged, or the disk refuses.
    """
    conclusion = Conclusion.load(folder / "conclusion.json")
    drawn = {**_standard(folder, conclusion), **{name: plots.draw(each) for name, each in conclusion.figures.items()}}
    clean(make_folder(folder / "plots"))
    for name, figure in drawn.items():
        for kind in ("svg", "png"):
            write_bytes(folder / "plots" / f"{name}.{kind}", plots.save(figure, kind))
    return drawn


def keep(conclusion: Conclusion, folder: Path) -> None:
    """Writes a conclusion and its figures to a folder of their own, all or nothing.

    Raises:
        UserError: the disk refuses.
    """
    with new_folder(folder) as temporary:
        conclusion.save(temporary / "conclusion.json")
        draw(temporary)


def write(folder: Path, drawn: dict[str, Figure], summary: dict[str, Any], about: str, use: str) -> Path:
    """Writes `report.html`, one page that needs nothing else.

    Args:
        folder: of the run.
        drawn: what `draw` gave.
        summary: what `summary.json` holds or will hold.
        about: what the run was, in plain words; paragraphs are separated by empty lines.
        use: commands and code that use what was learned; "{run}" stands for the folder.

    Returns:
        The page.

    Raises:
        UserError: a file is missing or damaged, or the disk refuses.
    """
    conclusion = Conclusion.load(folder / "conclusion.json")
    captions = {name: each.caption for name, each in conclusion.figures.items()}
    figures = [
        f"<figure>{plots.as_html(figure)}"
        f"<figcaption>{_text(captions.get(name) or _CAPTIONS[name.split('-')[0]])}</figcaption></figure>"
        for name, figure in drawn.items()
    ]
    page = folder / "report.html"
    write_text(page, _page(folder, summary, about, use, conclusion, figures))
    return page


def _diagnosis(folder: Path) -> str:
    """The section of `metatower diagnose`, if it has been run."""
    if not (folder / DIAGNOSIS).exists():
        return ""
    found = Conclusion.load(folder / DIAGNOSIS)
    figures = "".join(
        f"<figure>{plots.as_html(plots.draw(each))}<figcaption>{_text(each.caption)}</figcaption></figure>"
        for each in found.figures.values()
    )
    notes = "".join(f"<li>{_text(note)}</li>" for note in found.notes)
    return (
        f"<section><h2>Does it learn to learn?</h2><ul>{notes}</ul>{_results(found.results)}</section>"
        f"{_differences(found.paired)}<section>{figures}</section>"
    )


def _health(folder: Path) -> str:
    """The section of `metatower health`, if it has been run."""
    if not (folder / HEALTH).exists():
        return ""
    found = Conclusion.load(folder / HEALTH)
    parts = [f"<ul>{''.join(f'<li>{_text(note)}</li>' for note in found.notes)}</ul>"]
    for each in found.figures.values():
        if isinstance(each, Health):
            head, *lines = ("".join(f"<td>{_text(cell)}</td>" for cell in line) for line in each.table())
            body = "".join(f"<tr>{line}</tr>" for line in lines)
            parts.append(f"<table><thead><tr>{head.replace('td>', 'th>')}</tr></thead><tbody>{body}</tbody></table>")
        picture = plots.as_html(plots.draw(each))
        parts.append(f"<figure>{picture}<figcaption>{_text(each.caption)}</figcaption></figure>")
    return f"<section><h2>Is the gradient of the top storey worth following?</h2>{''.join(parts)}</section>"


def write_apart(found: Conclusion, folder: Path, file: str, title: str) -> Path:
    """Writes what `metatower diagnose` or `metatower health` found to a folder of its own: numbers and a page.

    Args:
        file: `DIAGNOSIS` or `HEALTH`; the page has the same name and ends in .html.

    Returns:
        The page.

    Raises:
        UserError: the disk refuses.
    """
    section, kind = {DIAGNOSIS: (_diagnosis, "diagnosis of a learner"), HEALTH: (_health, "health of a gradient")}[file]
    page = Path(file).with_suffix(".html").name
    with new_folder(folder) as temporary:
        found.save(temporary / file)
        header = f"<header><p class=small>metatower · {kind}</p><h1>{html.escape(title)}</h1></header>"
        write_text(temporary / page, _document(title, header + section(temporary)))
    return folder / page


def rewrite(folder: Path, about: str, use: str) -> Path:
    """`draw` and `write`, for a run that is finished; `about` and `use` as for `write`.

    Raises:
        UserError: it is not.
    """
    if not (folder / "summary.json").exists():
        raise UserError(f"The run in {folder} is not finished: continue it with `{resume_command(folder)}`.")
    return write(folder, draw(folder), read_json(folder / "summary.json"), about, use)


def _standard(folder: Path, conclusion: Conclusion) -> dict[str, Any]:
    """The figures that every run has."""
    drawn = {}
    metrics = list(dict.fromkeys(row.metric for row in conclusion.results))
    for metric in metrics:
        name = "" if len(metrics) == 1 else f"-{metric}"
        drawn[f"results{name}"] = plots.forest(conclusion.results, metric)
        if any(row.metric == metric for row in conclusion.paired):
            drawn[f"differences{name}"] = plots.differences(conclusion.paired, metric)
    if (folder / "metrics.jsonl").exists():
        lines = records.read(folder / "metrics.jsonl")
        shown = [
            name
            for name in ("loss", "accuracy", "return", "entropy")
            if lines and isinstance(lines[0].get(name), float)
        ]
        if shown:
            steps = np.array([line["step"] for line in lines])
            values = {
                name: np.array([np.nan if line[name] is None else line[name] for line in lines]) for name in shown
            }
            drawn["learning"] = plots.learning(steps, values, "loss")
    return drawn


def number(value: float | None, metric: str) -> str:
    """A value as people read it: shares as percentages, the rest with three or four figures."""
    if value is None or not np.isfinite(value):
        return "not finite" if value is None or np.isnan(value) else "∞" if value > 0 else "−∞"
    text = f"{100 * value:.2f}" if metric in SHARES else f"{value:.4g}"
    return text.replace("-", "−")


def unit_of(metric: str) -> str:
    """What `number` counts in."""
    return f"{metric} (%)" if metric in SHARES else metric


def bounds(ci95: tuple[float, float], metric: str) -> str:
    """An interval as people read it."""
    return f"[{number(ci95[0], metric)}, {number(ci95[1], metric)}]"


def plural(count: int, unit: str) -> str:
    """`1 task`, `2 tasks`, `2 families`."""
    if count == 1:
        return f"1 {unit}"
    return f"{count:,} {unit[:-1]}ies" if unit.endswith("y") and unit[-2:-1] not in "aeiou" else f"{count:,} {unit}s"


def _page(
    folder: Path, summary: dict[str, Any], about: str, use: str, conclusion: Conclusion, figures: list[str]
) -> str:
    config = read_json(folder / "config.json")
    paragraphs = [" ".join(each.split()) for each in about.split("\n\n") if each.strip()]
    lead, *rest = paragraphs or [summary["recipe"]]
    notes = "".join(f"<li>{_text(note)}</li>" for note in conclusion.notes)
    where = html.escape(str(folder))
    body = f"""<header><p class="small">metatower · report of one run</p><h1>{html.escape(summary["recipe"])}</h1>
<p class="lead">{_text(lead)}</p>
<p class="small">seed {summary["seed"]} · {_duration(summary["seconds"])} in all, compiling and judging included ·
{where}</p></header>
<section><h2>What this run was</h2>{"".join(f"<p>{_text(each)}</p>" for each in rest)}<ul>{notes}</ul></section>
<section><h2>Results</h2>{_results(conclusion.results)}</section>
{_differences(conclusion.paired)}
<section><h2>Figures</h2>{"".join(figures)}</section>
{_diagnosis(folder)}
{_health(folder)}
<section><h2>Use what was learned</h2>
<p>The folder <code>{where}/model</code> holds the trained learner: its numbers in <code>model.safetensors</code>, the
recipe that rebuilds it in <code>config.json</code>. It can be copied anywhere.</p>
<pre>{html.escape(use.replace("{run}", str(folder)))}</pre></section>
<section><details><summary>Every option of this run</summary>{_options(config)}</details></section>
"""
    return _document(summary["recipe"], body)


def _document(title: str, body: str) -> str:
    """A whole page, with the style of every page."""
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)} · metatower</title><style>{CSS}</style></head><body><main>
{body.rstrip()}
</main></body></html>
"""


def _results(results: list[Result]) -> str:
    parts = []
    for metric in dict.fromkeys(row.metric for row in results):
        rows = [row for row in results if row.metric == metric]
        better = "more" if metric in HIGHER_IS_BETTER else "less"
        lines = []
        for place, row in enumerate(rows):
            cells = (number(row.mean, metric), bounds(row.ci95, metric), plural(row.n, row.unit))
            numbers = "".join(f"<td class=n>{cell}</td>" for cell in cells)
            lines.append(f"<tr{'' if place else ' class=first'}><td>{_text(row.name)}</td>{numbers}</tr>")
        parts.append(
            f"<table><thead><tr><th></th><th class=n>{unit_of(metric)}</th><th class=n>95 % interval</th>"
            f"<th class=n>judged on</th></tr></thead><tbody>{''.join(lines)}</tbody></table>"
            f"<p class=small>Of {html.escape(metric)}, {better} is better.</p>"
        )
    return "".join(parts)


def _differences(rows: list[Paired]) -> str:
    if not rows:
        return ""
    body = "".join(
        f"<tr><td>{_text(row.name)}<br><span class=small>against {_text(row.against)}</span></td>"
        f"<td>{html.escape(row.metric)}</td><td class=n>{number(row.difference, row.metric)}</td>"
        f"<td class=n>{bounds(row.ci95, row.metric)}</td>"
        f"<td class={'gain' if row.gain else 'none'}>{html.escape(row.verdict)}</td></tr>"
        for row in rows
    )
    return (
        "<section><h2>Is it better?</h2><p>Each line compares two learners on the very same units, so that luck with "
        "the tasks cancels. It is a gain only where the whole interval lies on the better side of zero.</p>"
        "<table><thead><tr><th></th><th>of</th><th class=n>difference</th><th class=n>95 % interval</th><th></th></tr>"
        f"</thead><tbody>{body}</tbody></table></section>"
    )


def _options(config: dict[str, Any]) -> str:
    pairs = {**config.get("options", {}), **config.get("versions", {})}
    rows = "".join(f"<tr><td>{html.escape(n)}</td><td>{html.escape(str(v))}</td></tr>" for n, v in pairs.items())
    return f"<table>{rows}</table>"


def _text(text: str) -> str:
    return html.escape(text, quote=False)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


CSS = """
:root{color-scheme:light}
body{margin:0;background:#f4f5f7;color:#1f2933;font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:820px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:32px;margin:0 0 8px;letter-spacing:-.01em}h2{font-size:20px;margin:0 0 12px}
.lead{font-size:18px;margin:0 0 8px}.small{font-size:13px;color:#616e7c;margin:4px 0}
section{background:#fff;border:1px solid #e4e7eb;border-radius:10px;padding:22px 26px;margin:20px 0;overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px;margin:4px 0 8px}
th,td{text-align:left;padding:6px 10px 6px 0;border-bottom:1px solid #eef0f3;vertical-align:top}
th{color:#616e7c;font-weight:600;font-size:13px}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.first td{font-weight:600}.gain{color:#247a4b;font-weight:600}.none{color:#7b8794}
figure{margin:18px 0 30px}figcaption{font-size:13px;color:#52606d;margin-top:6px}svg.plot{width:100%;height:auto}
pre{background:#f4f5f7;border-radius:6px;padding:12px 14px;overflow-x:auto;font-size:13px}code{font-size:.92em}
summary{cursor:pointer;color:#52606d}ul{padding-left:20px}li{margin:4px 0}
"""
"""The style of every page."""
