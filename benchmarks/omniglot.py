"""Few-shot learning on Omniglot beside the published numbers: `python -m benchmarks.omniglot [--only prototypical]`.

Trains the recipes, judges each on 1,000 test tasks of 15 queries per class (Vinyals split, quarter turns as classes),
and writes `benchmarks/results/omniglot.json` and `docs/omniglot.md`. Trainings are kept in `--runs` and continued
there, so the command can be stopped and given again; rows of methods that are not asked for stay as they are.

A learner of features is trained once per number of shots, and judged on 5 and 20 ways.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from metatower.evaluation.episodes import evaluate
from metatower.evaluation.statistics import hierarchical, interval
from metatower.nets.norm import with_norm
from metatower.recipes import find
from metatower.recipes.run import execute, load
from metatower.training import runtime
from metatower.training.files import read_json, write_json, write_text
from metatower.training.progress import progress

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "omniglot.json", HERE.parent / "docs" / "omniglot.md"
EPISODES, QUERIES = 1000, 15
PUBLISHED = {
    "prototypical": {"5w1s": 98.8, "5w5s": 99.7, "20w1s": 96.0, "20w5s": 98.9},
    "matching": {"5w1s": 98.1, "5w5s": 98.9, "20w1s": 93.8, "20w5s": 98.5},
    "r2d2": {"5w1s": 98.9, "5w5s": 99.7, "20w1s": 96.2, "20w5s": 99.2},
    "maml": {"5w1s": 98.7, "5w5s": 99.9, "20w1s": 95.8, "20w5s": 98.9},
    "fomaml": {"5w1s": 98.3, "5w5s": 99.2, "20w1s": 89.4, "20w5s": 97.9},
    "reptile": {"5w1s": 97.7, "5w5s": 99.5, "20w1s": 89.4, "20w5s": 97.1},
    "meta-sgd": {"5w1s": 99.5, "5w5s": 99.9, "20w1s": 95.9, "20w5s": 99.0},
}
"""Test accuracy in %: Snell et al. 2017, Vinyals et al. 2016 (cosine, no FCE), Bertinetto et al. 2019, Finn et al.
2017, FOMAML and Reptile (transductive) as printed by Nichol et al. 2018, Li et al. 2017. Those of R2-D2, and of
Meta-SGD on 20 ways, are as others quote them."""
BY_ITSELF = {"reptile": {"5w1s": 95.39, "5w5s": 98.90, "20w1s": 88.14, "20w5s": 96.65}}
"""The same, each query judged by itself (Nichol et al. 2018: beside the support set, in its norms too)."""
SETTINGS = tuple(PUBLISHED["maml"])


@dataclass(frozen=True)
class Training:
    """One training, and the settings in which its result is judged."""

    method: str
    settings: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    """Further modes of the norms to judge it in, in which each query is judged by itself."""

    @property
    def name(self) -> str:
        return f"{self.method}-{self.settings[0]}"


FIVE = {"shots": 5, "train_queries": 5}
GRADIENT_BASED = ("maml", "fomaml", "meta-sgd", "reptile")


def twenty(method: str, shots: int) -> dict[str, Any]:
    """The options of a gradient-based method on 20 ways, as in its paper but for the number of steps."""
    ways = {"ways": 20, "train_ways": 20, "shots": shots}
    if method == "reptile":  # Nichol et al. 2018, table 4
        return {**ways, "inner_rate": 5e-4, "inner_batch": 20, "inner_steps": 10, "test_batch": 10}
    if method == "meta-sgd":  # one step
        return {**ways, "batch": 16, "steps": 4000}
    return {**ways, "batch": 16, "steps": 2000, "inner_steps": 5, "test_steps": 5}


TRAININGS = (
    Training("prototypical", ("5w1s", "20w1s")),
    Training("prototypical", ("5w5s", "20w5s"), FIVE),
    Training("r2d2", ("5w1s", "20w1s")),
    Training("r2d2", ("5w5s", "20w5s"), FIVE),
    Training("matching", ("5w1s", "20w1s")),
    Training("matching", ("5w5s", "20w5s"), FIVE),
    *(Training(method, ("5w1s",), also=("support",)) for method in GRADIENT_BASED),
    *(Training(method, ("5w5s",), {"shots": 5}, also=("support",)) for method in GRADIENT_BASED),
    *(Training(method, ("20w1s",), twenty(method, 1), also=("support",)) for method in GRADIENT_BASED),
    *(Training(method, ("20w5s",), twenty(method, 5), also=("support",)) for method in GRADIENT_BASED),
)


def rows_of(training: Training, seeds: list[int], runs: Path, mode: str) -> list[dict]:
    """Trains what is not trained yet, and judges it."""
    accuracies: dict[tuple[str, str], list[np.ndarray]] = {}
    protocol, seconds = "", 0.0
    for seed in seeds:
        recipe = find(training.method)(seed=seed, episodes=EPISODES, queries=QUERIES, **training.options)
        folder = runs / f"{training.name}-{seed}"
        summary = execute(recipe, folder, progress(mode))
        learner, protocol, seconds = load(folder), recipe.about_training(), seconds + summary["seconds"]
        for norm in (recipe.judged_norm, *training.also):
            for setting in training.settings:
                tasks = type(recipe)(**{**recipe_options(recipe), "ways": int(setting.split("w")[0])}).held_out()
                shown = progress(mode)
                judged = learner if norm == recipe.judged_norm else with_norm(learner, norm)
                found = evaluate(
                    judged, tasks, episodes=EPISODES, seed=seed, show=shown, title=f"{folder.name} {setting} {norm}"
                )
                accuracies.setdefault((setting, norm), []).append(100 * np.asarray(found["accuracy"]))
    rows = []
    for (setting, norm), found in accuracies.items():
        mean = interval(found[0]) if len(found) == 1 else hierarchical(np.stack(found))
        by_itself = norm in training.also
        published = (BY_ITSELF if by_itself else PUBLISHED).get(training.method, {}).get(setting)
        rows.append(
            {
                "method": training.method,
                "setting": setting,
                "accuracy": round(float(mean.mean), 2),
                "ci95": [round(float(mean.lo), 2), round(float(mean.hi), 2)],
                "published": published,
                "protocol": f"Vinyals split, rotated, {QUERIES} queries per class. {protocol}",
                "norm": norm,
                "episodes": EPISODES * len(seeds),
                "seeds": seeds,
                "seconds": round(seconds / len(seeds), 1),
                "command": f"python -m benchmarks.omniglot --only {training.method}",
            }
        )
        print(line(rows[-1]), flush=True)
    return rows


def recipe_options(recipe: Any) -> dict[str, Any]:
    """The options of a recipe as they are given to its class."""
    return {name: getattr(recipe, name) for name in recipe.options()}


HEAD = (
    "| method | setting | accuracy, % | 95 % interval | published, % | norms | seeds | training and judging, s |\n"
    "|---|---|---|---|---|---|---|---|"
)


def line(row: dict) -> str:
    """A row of the table."""
    lo, hi = row["ci95"]
    published = "–" if row["published"] is None else str(row["published"])
    reached = "" if row["published"] is None or row["accuracy"] >= row["published"] else " (missed)"
    return (
        f"| {row['method']} | {row['setting']} | {row['accuracy']:.2f} | {lo:.2f} to {hi:.2f} "
        f"| {published}{reached} | {row['norm']} | {', '.join(map(str, row['seeds']))} | {row['seconds']:.0f} |"
    )


def page(content: dict) -> str:
    """The page of the documentation."""
    notes = sorted({f"- **{row['method']}, {row['setting']}**: {row['protocol']}" for row in content["rows"]})
    return "\n".join(
        [
            "# Omniglot",
            "",
            f"Written by `{content['command']}`; versions and machine are in `benchmarks/results/omniglot.json`.",
            f"Accuracy on {EPISODES:,} test tasks per seed, the task being the unit of replication; with several seeds "
            "the interval is a bootstrap over seeds and, within them, tasks. Norms `running` and `support` judge each "
            "query by itself; `transductive` ones see all queries of a task, as the papers of the gradient-based "
            "methods do. A published number is of the same way to judge, and reached if the mean is not below it; "
            "those of R2-D2, and of Meta-SGD on 20 ways, are as others quote them. Seconds are upper bounds, as "
            "machines did other work at the same time.",
            "",
            HEAD,
            *(line(row) for row in content["rows"]),
            "",
            "## Protocols",
            "",
            *notes,
            "",
        ]
    )


def main() -> None:
    """Every training that is asked for; the files are written after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PUBLISHED, help="methods; all if not given")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, help="ways and shots; all if not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs") / "omniglot", help="where trainings are kept")
    parser.add_argument("--progress", default="auto")
    given = parser.parse_args()
    runtime.setup()
    for training in TRAININGS:
        wanted = not given.settings or set(given.settings) & set(training.settings)
        if (given.only and training.method not in given.only) or not wanted:
            continue
        fresh = rows_of(training, given.seeds, given.runs, given.progress)
        kept = read_json(RESULTS)["rows"] if RESULTS.exists() else []
        mine = {(row["method"], row["setting"], row["norm"]) for row in fresh}
        rows = [row for row in kept if (row["method"], row["setting"], row["norm"]) not in mine] + fresh
        order = {method: i for i, method in enumerate(PUBLISHED)}
        rows.sort(key=lambda row: (order[row["method"]], row["norm"], row["setting"]))
        content = {"command": "python -m benchmarks.omniglot", **machine(), "rows": rows}
        write_json(RESULTS, content)
        write_text(PAGE, page(content))


if __name__ == "__main__":
    main()
