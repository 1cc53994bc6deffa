"""Results as tables on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from metatower.evaluation.conclusion import Conclusion, Paired, Result
from metatower.evaluation.gradient_health import Health
from metatower.evaluation.report import bounds, number, plural, unit_of


def show(
    results: Sequence[Result], paired: Sequence[Paired], notes: Sequence[str] = (), console: Console | None = None
) -> None:
    """Prints results and paired differences with their intervals, and says where there is no gain.

    Args:
        console: standard output if None.
    """
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    for metric in dict.fromkeys(row.metric for row in results):
        rows = [row for row in results if row.metric == metric]
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("")
        for name in (unit_of(metric), "95 % interval", "judged on"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(row.name, number(row.mean, metric), bounds(row.ci95, metric), plural(row.n, row.unit))
        console.print(table)
        console.print()
    if paired:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("the same units, compared in pairs")
        for name in ("difference", "95 % interval"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("")
        for row in paired:
            style = "green" if row.gain else "dim"
            what = f"{row.name} − {row.against} ({row.metric})"
            cells = (number(row.difference, row.metric), bounds(row.ci95, row.metric))
            table.add_row(what, *cells, f"[{style}]{row.verdict}[/]")
        console.print(table)
        console.print()
    for note in notes:
        console.print(note, markup=False, highlight=False)


def show_health(found: Conclusion, console: Console | None = None) -> None:
    """Prints what `metatower health` found: a table per place, and the sentences.

    Args:
        console: standard output if None.
    """
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    for each in found.figures.values():
        if isinstance(each, Health):
            (first, *head), *lines = each.table()
            table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), title=each.place)
            table.title_justify = "left"
            table.add_column(first)
            for name in head:
                table.add_column(name, justify="right", no_wrap=True)
            for line in lines:
                table.add_row(*line)
            console.print(table)
            console.print()
    show([], [], found.notes, console)
