"""What `metatower compare` has found: all rows, all paired differences, and the page."""

import dataclasses
from pathlib import Path
from typing import Any

from metatower.evaluation import comparison as judging
from metatower.evaluation import comparison_page
from metatower.evaluation.comparison import Measured
from metatower.recipes.compare_plan import Asked, Planned
from metatower.recipes.compare_seed import TUNED
from metatower.recipes.families import FAMILIES
from metatower.recipes.grounds import Ground
from metatower.training.files import read_json, write_json

RESULT = "comparison.json"
LONGER = "pooled MAML + 5K"
"""Five times the meta-steps is no equal compute: it is shown, and never the best baseline."""


def concluded(
    asked: Asked,
    planned: Planned,
    where: Ground,
    measured: dict[tuple[str, str], Measured],
    parents: dict[str, str],
    chosen: list[str],
    seconds: float,
    command: str,
    folder: Path,
) -> dict[str, Any]:
    """Tables and figures, written to the folder; gives what `comparison.json` holds.

    Args:
        measured: all seeds together, by name and split.
        parents: the family that a contestant belongs to, for those that belong to one.
        chosen: what was tuned to what, in sentences.
    """
    splits = list(dict.fromkeys(split for _, split in measured))
    names = list(dict.fromkeys(name for name, _ in measured))
    results, pairs, best = [], [], {}
    for split in splits:
        here = {name: measured[name, split] for name in names}
        threshold = here[TUNED].ends[where.metric]
        for name in names:
            about = {
                "families": where.name,
                "split": split,
                "seeds": len(asked.seeds),
                "budget": _budget(name, planned, parents),
                "command": command,
            }
            for row in judging.rows(name, here[name], threshold, where.metric):
                results.append({**dataclasses.asdict(row), **about})
        for name in [each for each in names if parents.get(each) == each]:
            others = {n: m for n, m in here.items() if parents.get(n, name) == name and n not in (name, LONGER)}
            best[f"{name}, {split}"] = judging.best_of(others, where.metric)
            for row in judging.differences(name, here[name], others, best[f"{name}, {split}"]):
                pairs.append({**dataclasses.asdict(row), "families": where.name, "split": split})
    content = {
        "command": command,
        "families": where.name,
        "about": where.words,
        "left-out": asked.left_out(where),
        "metric": where.metric,
        "minutes": asked.minutes,
        "seconds": seconds,
        "meta_steps": where.common["meta_steps"],
        "planned": dataclasses.asdict(planned),
        "results": results,
        "paired": pairs,
        "best-baseline": best,
        "notes": chosen,
    }
    write_json(folder / RESULT, content)
    words = {name: FAMILIES[name].words for name in planned.steps}
    comparison_page.write(folder, read_json(folder / RESULT), measured, parents, words)
    return content


def _budget(name: str, planned: Planned, parents: dict[str, str]) -> int | None:
    """Base-learner gradient evaluations in the training of a contestant."""
    if name in parents and FAMILIES[parents[name]].by_features:
        return 0
    if name in parents and not name.endswith("frozen at its start"):
        return planned.evaluations[parents[name]]
    if name == "default MAML" or name.removesuffix(" + K") in planned.heads:
        return 0
    if name in parents and not FAMILIES[parents[name]].from_pooled:
        return 0  # frozen at its start, which is fresh
    if name.startswith("pooled MAML"):
        return planned.evaluations["pooled MAML"]
    if name == "MAML, rates from random search":
        return planned.evaluations["random search"]
    return (planned.evaluations["pooled MAML"] or 0) * planned.pooled_steps // planned.pooled_total
