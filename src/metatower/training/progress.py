"""Telling a person how far a long job is: a bar on a terminal, plain lines elsewhere, silence on request."""

import sys
import time
from abc import ABC, abstractmethod
from io import TextIOBase


class Progress(ABC):
    """How far a job is. Jobs follow each other: `start`, `advance` …, `finish`, `start`, …"""

    @abstractmethod
    def start(self, title: str, total: int, done: int = 0) -> None:
        """A job of `total` steps begins, or goes on after `done` of them."""

    @abstractmethod
    def advance(self, n: int, **numbers: float) -> None:
        """`n` more steps are done; `numbers` (loss, accuracy) are shown beside them."""

    @abstractmethod
    def note(self, text: str) -> None:
        """A line to be read."""

    @abstractmethod
    def finish(self) -> None:
        """The job has ended, well or not. Harmless when no job is under way."""


class Silent(Progress):
    """Says nothing."""

    def start(self, title: str, total: int, done: int = 0) -> None:
        del title, total, done

    def advance(self, n: int, **numbers: float) -> None:
        del n, numbers

    def note(self, text: str) -> None:
        del text

    def finish(self) -> None:
        pass


class _Clock:
    """Steps done, and the rate over the recent past: the first report, which holds the compilation, is left out."""

    def __init__(self, total: int, done: int):
        self.total, self.done = total, done
        self.rate: float | None = None
        self._last: float | None = None

    def advance(self, n: int) -> None:
        now = time.monotonic()
        if self._last is not None and now > self._last:
            rate = n / (now - self._last)
            self.rate = rate if self.rate is None else 0.7 * self.rate + 0.3 * rate
        self.done, self._last = self.done + n, now

    @property
    def left(self) -> float | None:
        """Seconds to go."""
        return (self.total - self.done) / self.rate if self.rate else None


class Plain(Progress):
    """One line every few seconds.

    Args:
        out: where to write; standard error if None.
        every: seconds between lines.
    """

    def __init__(self, out: TextIOBase | None = None, every: float = 5.0):
        self._out, self._every = out, every
        self._clock: _Clock | None = None

    def start(self, title: str, total: int, done: int = 0) -> None:
        self._title, self._clock, self._said, self._shown = title, _Clock(total, done), -float("inf"), done

    def advance(self, n: int, **numbers: float) -> None:
        if self._clock is None:
            return
        self._clock.advance(n)
        self._numbers = numbers
        if time.monotonic() - self._said >= self._every or self._clock.done >= self._clock.total:
            self._line()

    def note(self, text: str) -> None:
        print(text, file=self._out or sys.stderr, flush=True)

    def finish(self) -> None:
        if self._clock is not None and self._clock.done != self._shown:
            self._line()
        self._clock = None

    def _line(self) -> None:
        clock = self._clock
        assert clock is not None
        self._said, self._shown = time.monotonic(), clock.done
        self.note("  ".join([f"{self._title}  {clock.done}/{clock.total}", *_facts(clock, self._numbers)]))


class Rich(Progress):
    """A bar that is redrawn in place."""

    def __init__(self):
        self._bar = None

    def start(self, title: str, total: int, done: int = 0) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self.finish()
        self._clock = _Clock(total, done)
        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
        ]
        self._bar = Bar(*columns, console=Console(stderr=True), refresh_per_second=5)
        self._job = self._bar.add_task(title, total=total, completed=done, facts="compiling …")
        self._bar.start()

    def advance(self, n: int, **numbers: float) -> None:
        if self._bar is not None:
            self._clock.advance(n)
            self._bar.update(self._job, advance=n, facts="  ".join(_facts(self._clock, numbers)))

    def note(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = None


def progress(mode: str = "auto") -> Progress:
    """A `Progress`: "rich", "plain", "silent", or "auto" (rich if standard error is a terminal, else plain)."""
    modes = {"rich": Rich, "plain": Plain, "silent": Silent}
    if mode == "auto":
        mode = "rich" if sys.stderr.isatty() else "plain"
    if mode not in modes:
        raise ValueError(f"progress: expected one of auto, {', '.join(modes)}, got {mode!r}.")
    return modes[mode]()


def _facts(clock: _Clock, numbers: dict[str, float]) -> list[str]:
    facts = [_rate(clock.rate)] if clock.rate else []
    if clock.left:
        facts.append(f"{_duration(clock.left)} left")
    return facts + [
        f"{name} {100 * number:.1f}%" if name.endswith("accuracy") else f"{name} {number:.4g}"
        for name, number in numbers.items()
    ]


def _rate(rate: float) -> str:
    if rate < 1:
        return f"{1 / rate:.1f} s/step"
    return f"{rate:.1f} steps/s" if rate < 10 else f"{rate:.0f} steps/s"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
