"""What a run has shown: results with intervals, paired differences, and the data behind its figures."""

import base64
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metatower.core.errors import UserError
from metatower.evaluation.gradient_health import Health, Row
from metatower.evaluation.statistics import Interval, gain, interval, paired, verdict
from metatower.training.files import read_json, write_json

Scores = dict[str, np.ndarray]
"""What `evaluate` gives: one value per unit for "loss" and for each metric."""


@dataclass(frozen=True)
class Result:
    """One row of the table: a mean over `n` independent units."""

    name: str
    metric: str
    mean: float
    ci95: tuple[float, float]
    n: int
    unit: str


@dataclass(frozen=True)
class Paired:
    """One comparison on the same units: `name` minus `against`."""

    name: str
    against: str
    metric: str
    difference: float
    ci95: tuple[float, float]

    @property
    def verdict(self) -> str:
        """What the interval says, in words."""
        lo, hi = self.ci95
        if not (np.isfinite(lo) and np.isfinite(hi)):
            return "no gain here (cannot be compared: too few units, or a value that is not finite)"
        side = "higher: " if lo > 0 else "lower: " if hi < 0 else ""
        return side + verdict(self.ci95, self.metric)

    @property
    def gain(self) -> bool:
        """Whether the whole interval lies on the better side of zero."""
        return gain(self.ci95, self.metric)


@dataclass(frozen=True)
class Curves:
    """Lines with bands, such as the loss against the steps of adaptation."""

    caption: str
    x_label: str
    y_label: str
    series: dict[str, Interval]
    """Means and bounds, each `[points]`; x is 0, 1, 2, ... unless given."""
    x: np.ndarray | None = None
    log: bool = False
    levels: dict[str, float] = field(default_factory=dict)
    """What is known exactly, drawn as level lines."""


@dataclass(frozen=True)
class Rates:
    """Learned rates, per leaf and step."""

    caption: str
    leaves: tuple[str, ...]
    values: np.ndarray
    """`[leaf, step]`; nothing to draw where NaN."""
    start: float | None = None
    """The value they all started from; colours then show the factor."""
    label: str = "learned rate"
    linear: bool = False
    """Whether colours show differences, where there is no start, and not ratios."""


@dataclass(frozen=True)
class FunctionTask:
    """One regression task with predictions."""

    x: np.ndarray
    truth: np.ndarray
    support_x: np.ndarray
    support_y: np.ndarray
    predictions: dict[str, np.ndarray]


@dataclass(frozen=True)
class Functions:
    """Sample regression tasks with predictions."""

    caption: str
    tasks: tuple[FunctionTask, ...]


@dataclass(frozen=True)
class Images:
    """One sample image task: what was seen, and what was said of the queries.

    Images are `[n, height, width]` or `[n, height, width, 3]`, 0 to 1 or 0 to 255.
    """

    caption: str
    support: np.ndarray
    support_labels: np.ndarray
    query: np.ndarray
    query_labels: np.ndarray
    predicted: np.ndarray


@dataclass
class Conclusion:
    """Collects what a run has shown; `save` and `load` keep it to the last bit."""

    notes: list[str] = field(default_factory=list)
    """Plain sentences: what exactly was run, and what a reader should know of the numbers."""
    results: list[Result] = field(default_factory=list)
    paired: list[Paired] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    """`Curves`, `Rates`, `Functions`, `Images` or `Health` by file name."""
    scores: dict[str, Scores] = field(default_factory=dict)
    """The values behind the rows, one per unit."""

    def add(self, name: str, scores: Scores, unit: str, metrics: tuple[str, ...] | None = None) -> None:
        """Adds a row per metric.

        Args:
            name: of what was judged.
            scores: as `evaluate` gives them.
            unit: of replication, in the singular: "task", "distribution".
            metrics: which of the scores; accuracy, return and loss, where they are there, if None.
        """
        if metrics is None:
            metrics = tuple(metric for metric in ("accuracy", "return", "loss") if metric in scores)
        for metric in metrics:
            each = interval(scores[metric])
            self.results.append(Result(name, metric, each.mean, (each.lo, each.hi), each.n, unit))
        self.scores[name] = {metric: np.asarray(scores[metric]) for metric in metrics}

    def compare(self, name: str, *against: str, metrics: tuple[str, ...] | None = None) -> None:
        """Adds the paired differences of one added row against others; their scores must be of the same units."""
        for other in against:
            for metric in metrics or tuple(m for m in self.scores[name] if m in self.scores[other]):
                each = paired(self.scores[name][metric], self.scores[other][metric])
                self.paired.append(Paired(name, other, metric, each.mean, (each.lo, each.hi)))

    def summary(self) -> dict[str, Any]:
        """The results and paired rows as plain data."""
        return {
            "results": [dataclasses.asdict(row) for row in self.results],
            "paired": [dataclasses.asdict(row) for row in self.paired],
        }

    def save(self, path: Path) -> None:
        """Writes one JSON file; arrays keep every bit."""
        write_json(path, _encode(self))

    @staticmethod
    def load(path: Path) -> "Conclusion":
        """Reads what `save` wrote.

        Raises:
            UserError: missing, damaged or foreign.
        """
        try:
            conclusion = _decode(read_json(path))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path} is damaged, or not a file of this library ({error!r}).") from error
        if not isinstance(conclusion, Conclusion):
            raise UserError(f"{path}: expected the conclusion of a run, got {type(conclusion).__name__}.")
        return conclusion


_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (Result, Paired, Interval, Curves, Rates, FunctionTask, Functions, Images, Health, Row, Conclusion)
}


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        content = {each.name: _encode(getattr(value, each.name)) for each in dataclasses.fields(value)}
        return {"is": type(value).__name__, **content}
    if isinstance(value, dict):
        return {name: _encode(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(each) for each in value]
    if isinstance(value, float) and not np.isfinite(value):
        return {"is": "number", "value": repr(value)}
    if hasattr(value, "dtype"):
        array = np.asarray(value)
        data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        return {"is": "array", "dtype": array.dtype.str, "shape": list(array.shape), "data": data}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(each) for each in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("is")
    if kind is None:
        return {name: _decode(each) for name, each in value.items()}
    if kind == "number":
        return float(value["value"])
    if kind == "array":
        data = base64.b64decode(value["data"], validate=True)
        return np.frombuffer(data, np.dtype(value["dtype"])).reshape(value["shape"]).copy()
    content = {name: _decode(each) for name, each in value.items() if name != "is"}
    # JSON has no tuples
    return _KINDS[kind](**{n: tuple(v) if n in ("ci95", "leaves", "tasks", "rows") else v for n, v in content.items()})
