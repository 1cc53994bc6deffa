"""Random search over two rates: every pair is tried once, whenever there is time, and the best is taken."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metatower.training.files import make_folder, read_json, write_json
from metatower.training.progress import Progress, Silent

Rates = tuple[float, float]


class RandomSearch:
    """The pair of rates with the least score.

    Trials can be made beside other work (`jobs`, for `metatower.training.beside`) and in several sessions: what a trial
    has found is kept.

    Args:
        candidates: a learner for every pair of rates, or whatever `score` takes.
        score: what the trial of a candidate gives, the less the better; not a finite number if it failed.
        path: the JSON file that keeps the scores; nowhere if None.
    """

    def __init__(
        self, candidates: Mapping[Rates, Any], score: Callable[[Any, Progress], float], path: Path | None = None
    ):
        self._candidates, self._score, self._path = candidates, score, path
        kept = read_json(path) if path is not None and path.exists() else {}
        found = {(inner, outer): np.inf if score is None else score for inner, outer, score in kept.get("trials", [])}
        self._found = {rates: score for rates, score in found.items() if rates in candidates}

    def jobs(self) -> list[Callable[[], object]]:
        """The trials that are yet to be made."""
        return [
            lambda rates=rates: self._tried(rates, Silent()) for rates in self._candidates if rates not in self._found
        ]

    def best(self, show: Progress) -> Rates:
        """The pair of rates with the least score, once all trials that are missing have been made."""
        return min(self._candidates, key=lambda rates: self._tried(rates, show))

    def _tried(self, rates: Rates, show: Progress) -> float:
        if rates not in self._found:
            self._found[rates] = self._score(self._candidates[rates], show)
            if self._path is not None:
                make_folder(self._path.parent)
                rows = [[*pair, score if np.isfinite(score) else None] for pair, score in self._found.items()]
                write_json(self._path, {"trials": rows})
        return self._found[rates]
