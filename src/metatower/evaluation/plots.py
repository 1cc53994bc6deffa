"""Figures of a run, drawn with matplotlib's objects alone: no display, no global state, the same bytes each time."""

import io
import re
import textwrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LogNorm, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from metatower.evaluation.conclusion import Curves, Functions, Images, Paired, Rates, Result
from metatower.evaluation.gradient_health import Health
from metatower.evaluation.statistics import HIGHER_IS_BETTER, SHARES

COLOURS = ("#1f5fa8", "#d1662b", "#3a8f5c", "#8a57a8", "#b23a48", "#6b7280", "#0e8c8c", "#a0842c")
_INK, _FAINT = "#1f2933", "#d5dae1"
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e8ebef",
    "axes.axisbelow": True,
    "text.color": _INK,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "path",
    "svg.hashsalt": "metatower",
}


def draw(figure: Any) -> Figure:
    """The drawing of any figure of a `Conclusion`.

    Args:
        figure: `Curves`, `Rates`, `Functions`, `Images` or `Health`.
    """
    painters = {Curves: curves, Rates: rates, Functions: functions, Images: images, Health: gradient_health}
    for kind, painter in painters.items():
        if isinstance(figure, kind):
            return painter(figure)
    raise TypeError(f"Expected Curves, Rates, Functions, Images or Health, got {type(figure).__name__}.")


def save(figure: Figure, kind: str) -> bytes:
    """The figure as "svg" or "png", without a date in it."""
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE):
        if kind == "svg":
            FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
        elif kind == "png":
            FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
        else:
            raise ValueError(f"Expected 'svg' or 'png', got {kind!r}.")
    return buffer.getvalue()


def as_html(figure: Figure) -> str:
    """The figure as an `<svg>` element to be put into a page."""
    text = save(figure, "svg").decode()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # as wide as the page, but no wider than it was drawn to be
    opening = f'<svg class="plot" style="max-width:{115 * figure.get_figwidth():.0f}px" viewBox='
    return re.sub(r"<svg [^>]*?viewBox=", opening, text, count=1)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **how) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False, **how)


def _styled(painter):
    def painted(*args, **how):
        with mpl.rc_context(_STYLE):
            return painter(*args, **how)

    painted.__doc__, painted.__name__ = painter.__doc__, painter.__name__
    return painted


@_styled
def curves(data: Curves) -> Figure:
    """Lines with bands of confidence; where there are many, their names stand beside, in the order of their ends."""
    many = len(data.series) + len(data.levels) > 6
    figure, axes = _figure(8.4 if many else 6.4, 3.4)
    ax: Axes = axes[0, 0]
    for place, ((name, band), colour) in enumerate(zip(data.series.items(), _colours(), strict=False)):
        x = np.arange(len(band.mean)) if data.x is None else data.x
        few, dash = len(x) <= 30, "-" if place < len(COLOURS) else "--"  # a colour comes back with another dash
        ax.plot(
            x, band.mean, dash, color=colour, label=name, marker="o" if few else None, markersize=3.5, linewidth=1.6
        )
        ax.fill_between(x, *_finite(band.lo, band.hi, data.log), color=colour, alpha=0.18, linewidth=0)
    for name, level in data.levels.items():
        ax.axhline(level, color=_INK, linestyle=":", linewidth=1.2, label=name)
    if data.y_label in SHARES:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    if data.log and any(np.any(np.asarray(band.mean) > 0) for band in data.series.values()):
        ax.set_yscale("log")
    ax.set_xlabel(data.x_label)
    ax.set_ylabel(data.y_label)
    if many:
        lines = sorted(ax.get_lines(), key=lambda line: -np.asarray(line.get_ydata(), float)[-1])
        figure.legend(handles=lines, loc="outside right upper")
    elif len(data.series) + len(data.levels) > 1:
        ax.legend()
    return figure


@_styled
def learning(steps: np.ndarray, values: dict[str, np.ndarray], title: str) -> Figure:
    """Metrics against training steps: each logged value faintly, and their running mean.

    Args:
        steps: `[points]`.
        values: one array `[points]` per metric.
        title: of the vertical axis where there is one metric only.
    """
    figure, axes = _figure(6.4, 3.2 if len(values) == 1 else 2.9, 1, max(1, len(values)))
    for ax, (name, each), colour in zip(axes[0], values.items(), _colours(), strict=False):
        ax.plot(steps, each, color=colour, alpha=0.25, linewidth=0.8)
        ax.plot(*_smooth(steps, each), color=colour, linewidth=1.8)
        finite = each[np.isfinite(each)]
        if name not in HIGHER_IS_BETTER and len(finite) and finite.min() > 0 and finite.max() > 20 * finite.min():
            ax.set_yscale("log")
        if name in SHARES:
            ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.set_xlabel("training step")
        ax.set_ylabel(title if len(values) == 1 else name)
    return figure


@_styled
def forest(results: list[Result], metric: str) -> Figure:
    """The results of one metric, one below the other, with their intervals."""
    rows = [row for row in results if row.metric == metric]
    labels = [textwrap.fill(row.name, 42) for row in rows]
    lines = sum(1 + label.count("\n") for label in labels)
    figure, axes = _figure(6.6, 0.9 + 0.27 * lines)
    ax = axes[0, 0]
    for place, row in enumerate(rows):
        if not np.isfinite(row.mean):
            ax.annotate("not finite", (0.02, place), xycoords=("axes fraction", "data"), va="center", color=COLOURS[4])
            continue
        colour = COLOURS[0] if place == 0 else "#7b8794"
        if np.all(np.isfinite(row.ci95)):
            ax.plot(row.ci95, [place, place], color=colour, linewidth=2, solid_capstyle="round")
        ax.plot(row.mean, place, "o", color=colour, markersize=5)
        ax.annotate(
            _number(row.mean, metric), (row.mean, place), (0, 5), textcoords="offset points", ha="center", size=7
        )
    ax.set_yticks(range(len(rows)), labels)
    ax.set_ylim(len(rows) - 0.4, -0.7)
    ax.grid(visible=False, axis="y")
    side = "right" if metric in HIGHER_IS_BETTER else "left"
    _below(figure, ax, metric, f"{metric} (mean and 95 % interval; {side} is better)")
    return figure


@_styled
def differences(rows: list[Paired], metric: str) -> Figure:
    """Paired differences of one metric, one below the other, against zero."""
    rows = [row for row in rows if row.metric == metric]
    labels = [textwrap.fill(f"{row.name}  −  {row.against}", 46) for row in rows]
    figure, axes = _figure(6.6, 0.9 + 0.3 * sum(1 + label.count("\n") for label in labels))
    ax = axes[0, 0]
    ax.axvline(0, color=_INK, linewidth=1)
    for place, row in enumerate(rows):
        colour = COLOURS[2] if row.gain else "#7b8794"
        if np.all(np.isfinite(row.ci95)):
            ax.plot(row.ci95, [place, place], color=colour, linewidth=2, solid_capstyle="round")
            ax.plot(row.difference, place, "o", color=colour, markersize=5)
    ax.set_yticks(range(len(rows)), labels)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    side = "right" if metric in HIGHER_IS_BETTER else "left"
    _below(figure, ax, metric, f"difference in {metric} (95 % interval; a gain if wholly {side} of zero)")
    return figure


@_styled
def gradient_health(health: Health) -> Figure:
    """The gradients of several estimators: their lengths from key to key, and the cosines between them.

    Args:
        health: what `metatower.evaluation.gradient_health` found.
    """
    names = [row.name for row in health.rows]
    figure, axes = _figure(8.4, 1.6 + 0.4 * len(names), 1, 2, width_ratios=[1.5, 1])
    lengths, cosines = axes[0]
    for place, (row, colour) in enumerate(zip(health.rows, _colours(), strict=False)):
        shown = row.norms[np.isfinite(row.norms) & (row.norms > 0)]
        lengths.plot(shown, np.full(len(shown), place), "|", color=colour, markersize=13, markeredgewidth=1.4)
        words = f"signal/noise {row.signal_to_noise:.2g}"
        if row.finite < 1:
            words += f", {100 * (1 - row.finite):.0f} % not finite"
        lengths.annotate(words, (1, place + 0.36), xycoords=("axes fraction", "data"), ha="right", size=7)
    lengths.set_xscale("log")
    lengths.xaxis.set_major_locator(LogLocator(subs=(1, 3)))  # many decades: powers of ten alone
    lengths.xaxis.set_major_formatter("{x:g}")
    lengths.xaxis.set_minor_formatter(NullFormatter())
    lengths.set_yticks(range(len(names)), names)
    lengths.set_ylim(len(names) - 0.4, -0.6)
    lengths.set_xlabel("length of the gradient, a mark per key")
    cosines.imshow(np.nan_to_num(health.cosines), cmap="RdBu", norm=TwoSlopeNorm(0, -1, 1), aspect="auto")
    for (row, column), number in np.ndenumerate(health.cosines):
        text, colour = (f"{number:.2f}", "white" if abs(number) > 0.7 else _INK) if np.isfinite(number) else ("-", _INK)
        cosines.text(column, row, text, ha="center", va="center", size=7, color=colour)
    cosines.set_xticks(range(len(names)), names, rotation=20, ha="right")
    cosines.set_yticks(range(len(names)), [""] * len(names))
    cosines.set_title("mean cosine", size=9)
    cosines.grid(visible=False)
    return figure


@_styled
def rates(data: Rates) -> Figure:
    """A heat map of learned rates, leaf by leaf and step by step."""
    values = np.atleast_2d(np.asarray(data.values, float))
    leaves, steps = values.shape
    figure, axes = _figure(min(9.0, 3.2 + 0.62 * steps), 0.9 + 0.27 * leaves)
    ax = axes[0, 0]
    positive = values[np.isfinite(values) & (values > 0)]
    if data.start:
        spread = max(1.1, *(positive / data.start), *(data.start / positive)) if len(positive) else 1.1
        shown = np.log2(np.where(values > 0, values, np.nan) / data.start)
        norm = TwoSlopeNorm(0, -np.log2(spread), np.log2(spread))
        picture = ax.imshow(shown, norm=norm, cmap="RdBu_r", aspect="auto")
        label = f"doublings of {data.start:g}"
    else:
        norm = LogNorm(positive.min(), positive.max() * 1.0001) if len(positive) and not data.linear else None
        picture, label = ax.imshow(values, norm=norm, cmap="viridis", aspect="auto"), data.label
    for (leaf, step), number in np.ndenumerate(values):
        if np.isfinite(number):
            red, green, blue, _ = picture.cmap(picture.norm(picture.get_array()[leaf, step]))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            ax.text(step, leaf, f"{number:.2g}", ha="center", va="center", size=6.5, color="white" if dark else _INK)
    ax.set_yticks(range(leaves), data.leaves, size=7)
    ax.set_xticks(range(steps), [str(step + 1) for step in range(steps)] if steps > 1 else [data.label])
    if steps > 1:
        ax.set_xlabel("step")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = figure.colorbar(picture, ax=ax, fraction=0.05, pad=0.02)
    bar.set_label(label, size=8)
    bar.outline.set_visible(False)
    return figure


@_styled
def functions(data: Functions) -> Figure:
    """Sample regression tasks: the true function, the points shown, and the predictions."""
    columns = min(3, len(data.tasks))
    rows = -(-len(data.tasks) // columns)
    figure, axes = _figure(2.9 * columns + 0.3, 2.3 * rows + 0.5, rows, columns, sharex=True)
    for ax in axes.flat[len(data.tasks) :]:
        ax.set_visible(False)
    for ax, task in zip(axes.flat, data.tasks, strict=False):
        ax.plot(task.x, task.truth, color=_INK, linewidth=1.3, label="truth")
        dashes = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
        for (name, y), colour, dash in zip(task.predictions.items(), _colours(1), dashes * 3, strict=False):
            ax.plot(task.x, y, color=colour, linewidth=1.5, dashes=dash, label=name)
        ax.plot(task.support_x, task.support_y, "o", color=COLOURS[0], markersize=4, label="points shown", zorder=5)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


@_styled
def images(data: Images) -> Figure:
    """A sample image task: one row per class; what was shown to the left, what was asked to the right."""
    classes = np.unique(data.support_labels)
    shots = max(int(np.sum(data.support_labels == c)) for c in classes)
    queries = min(12, max(int(np.sum(data.query_labels == c)) for c in classes))
    high = max(float(np.max(data.support)), float(np.max(data.query)), 1e-9)
    figure, axes = _figure(
        0.62 * (shots + queries + 1), 0.7 * len(classes) + 0.35, len(classes), shots + queries + 1,
        width_ratios=[1] * shots + [0.4] + [1] * queries,
    )  # fmt: skip
    room = (0, 0, 1, 1 - 0.2 / figure.get_figheight())  # for the words above
    figure.set_layout_engine("constrained", w_pad=0.015, h_pad=0.015, wspace=0.02, hspace=0.02, rect=room)
    for ax in axes.flat:
        ax.set_axis_off()
    for row, c in enumerate(classes):
        shown = list(np.flatnonzero(data.support_labels == c)[:shots])
        asked = list(np.flatnonzero(data.query_labels == c)[:queries])
        for ax, i in zip(axes[row], shown, strict=False):
            _tile(ax, data.support[i], high, "#9aa5b1")
        for ax, i in zip(axes[row, shots + 1 :], asked, strict=False):
            right = data.predicted[i] == c
            _tile(ax, data.query[i], high, COLOURS[2] if right else COLOURS[4])
            if not right:
                said = int(np.flatnonzero(classes == data.predicted[i])[0]) + 1 if data.predicted[i] in classes else "?"
                ax.text(
                    0.5, -0.03, f"said {said}", transform=ax.transAxes, ha="center", va="top", size=6, color=COLOURS[4]
                )
        axes[row, 0].text(-0.18, 0.5, str(row + 1), transform=axes[row, 0].transAxes, ha="right", va="center", size=8)
    for ax, words in ((axes[0, 0], "shown"), (axes[0, shots + 1], "asked (green: right, red: wrong)")):
        # no part of the layout, which would widen the column to the words
        ax.text(0, 1.08, words, transform=ax.transAxes, size=8, va="bottom").set_in_layout(False)
    return figure


def _tile(ax: Axes, image: np.ndarray, high: float, colour: str) -> None:
    image = np.squeeze(np.asarray(image, float)) / (255.0 if high > 2 else max(high, 1.0))
    ax.imshow(np.clip(image, 0, 1), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_on()
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set(visible=True, color=colour, linewidth=1.6)


def _below(figure: Figure, ax: Axes, metric: str, words: str) -> None:
    """Words that may be wider than the axes."""
    figure.supxlabel(words, size=9)
    if metric in SHARES:
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))


def _colours(first: int = 0):
    return (COLOURS[(first + i) % len(COLOURS)] for i in range(10**6))


def _finite(lo, hi, log: bool):
    lo, hi = (np.where(np.isfinite(each), each, np.nan) for each in (lo, hi))
    return (np.maximum(lo, 1e-12) if log else lo), hi


def _smooth(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    width = max(1, len(values) // 40)
    if width == 1:
        return steps, values
    kernel = np.ones(width) / width
    return np.convolve(steps, kernel, "valid"), np.convolve(values, kernel, "valid")


def _number(value: float, metric: str) -> str:
    return f"{100 * value:.1f} %" if metric in SHARES else f"{value:.3g}"
