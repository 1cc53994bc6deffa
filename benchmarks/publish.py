"""Keeps what a run found: `python -m benchmarks.publish RUN NAME`.

Writes `benchmarks/results/NAME.json`: the options, versions, results, paired differences and notes of a finished run,
and its curve along the meta-steps where there is one. The command is that of the run's recipe with the options that
differ from its defaults.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.recipes import find

RESULTS = Path(__file__).parent / "results"
DIGITS = 4


def command(recipe: str, options: dict[str, Any]) -> str:
    """The command line that makes a run with these options."""
    defaults = find(recipe)().options()
    words = ["metatower", "train", recipe]
    for name, given in options.items():
        flag = name.replace("_", "-")
        if given == defaults.get(name):
            continue
        if isinstance(given, bool):
            words.append(f"--{flag}" if given else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, given if isinstance(given, list) else [given])]
    return " ".join(words)


def published(run: Path) -> dict[str, Any]:
    """What is kept of a finished run."""
    config, summary = (json.loads((run / f"{name}.json").read_text()) for name in ("config", "summary"))
    conclusion = Conclusion.load(run / "conclusion.json")
    kept = {
        "command": command(config["recipe"], config["options"]),
        **machine(),
        "versions": config["versions"],
        "options": config["options"],
        **summary,
        "notes": conclusion.notes,
    }
    curves = conclusion.figures.get("runs")
    if isinstance(curves, Curves):
        series = {
            name: {part: np.round(getattr(each, part), DIGITS).tolist() for part in ("mean", "lo", "hi")}
            for name, each in curves.series.items()
        }
        kept["along the run"] = {
            "unit": curves.x_label, "metric": curves.y_label, "caption": curves.caption, "series": series,
        }  # fmt: skip
    return kept


def main(arguments: list[str] | None = None) -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    given = parser.parse_args(arguments)
    text = json.dumps(published(given.run), indent=1, ensure_ascii=False) + "\n"
    (RESULTS / f"{given.name}.json").write_text(text)


if __name__ == "__main__":
    main()
