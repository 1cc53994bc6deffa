"""Meta-RL beside the published numbers and the exact ceilings: `python -m benchmarks.meta_rl [--only bandit-10-5]`.

Trains the recipes and writes `benchmarks/results/meta_rl.json` and `docs/meta-rl-results.md`. Trainings are kept in
`--runs` and continued there, so that the command can be stopped and given again; rows of settings that are not asked
for stay as they are. Trials are fresh ones, 20,000 per seed unless a setting says otherwise, the same worlds and luck
for all agents of a seed. Published values are of Duan et al. 2016, tables 1 and 2.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.publish import command
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.statistics import interval, paired
from metatower.recipes import find
from metatower.recipes.rl2_arm import ORACLE, RANDOMISED, share_closed
from metatower.recipes.run import CONCLUSION, execute
from metatower.training import runtime
from metatower.training.files import read_json, write_json, write_text
from metatower.training.progress import progress

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "meta_rl.json", HERE.parent / "docs" / "meta-rl-results.md"


@dataclass(frozen=True)
class Setting:
    """One training, and what is asked of it."""

    recipe: str
    options: dict[str, Any] = field(default_factory=dict)
    target: float | None = None
    """What the first row should reach."""
    published: float | None = None
    limit: float | None = None
    """Seconds that it should take at most, on two cores."""
    aims: Callable[[Conclusion], dict[str, tuple[float, float]]] | None = None
    """What should be reached, where it is not the first row: by name, what was found and the least that is wanted."""
    seeds: tuple[int, ...] = (0,)
    after: str | None = None
    """The setting whose run this one goes on from, with `--start`; its seconds count, too."""

    @property
    def command(self) -> str:
        """How one run of it is made by hand."""
        return command(self.recipe, self.options | ({"start": f"runs/{self.after}"} if self.after else {}))


def bandit(
    pulls: int, arms: int, target: float, published: float, seeds: tuple[int, ...] = (0,), **options: Any
) -> Setting:
    """Bandits of so many arms, in trials of so many pulls."""
    limit = {10: 180, 100: 1200, 500: 3600}[pulls]
    return Setting("rl2-bandits", {"arms": arms, "episodes": pulls, **options}, target, published, limit, seeds=seeds)


def by_episode(conclusion: Conclusion) -> dict[str, tuple[float, float]]:
    """What GridNavi should bring in the first and the fourth episode."""
    figure = conclusion.figures["episodes"]
    assert isinstance(figure, Curves)
    gained = figure.series["RL²"].mean
    return {"episode 1": (gained[0], 3.5), "episode 4": (gained[3], 10.0)}


def after_steps(conclusion: Conclusion) -> dict[str, tuple[float, float]]:
    """What navigation should bring after one and three steps of adaptation."""
    wanted = {"after 1 step": -15.0, "after 3 steps": -10.0}
    return {name: (conclusion.scores[f"MAML, {name}"]["return"].mean(), least) for name, least in wanted.items()}


def gap_closed(conclusion: Conclusion) -> dict[str, tuple[float, float]]:
    """How much of the gap between domain randomisation and the oracle the arm's agent should close, in per cent."""
    found = {}
    for split in ("training", "extrapolation"):
        three = (conclusion.scores[f"{name}, {split}"]["return"] for name in ("RL²", RANDOMISED, ORACLE))
        found[f"% of the gap, {split}"] = (100 * share_closed(*three), 60.0)
    return found


THREE = (0, 1, 2)

LONG = {"memory": "attention", "signal": "regret", "trace": 0.95, "discount": 0.999, "trials": 256, "minibatches": 4}
HUNDRED = {**LONG, "rate": 1e-3, "entropy": 0.03, "unit": 5.0, "chunk": 8}
FIVE_HUNDRED = {**HUNDRED, "steps": 600, "discount": 1.0, "trials": 128, "unit": 10.0}
FINE = {"trace": 0.97, "settle": True, "chunk": 2}
SETTINGS = {
    "bandit-10-5": bandit(10, 5, 6.60, 6.7, seeds=THREE),
    "bandit-10-10": bandit(10, 10, 6.65, 6.7, seeds=THREE),
    "bandit-10-5-ablated": Setting("rl2-bandits", {"ablate": True}),
    "bandit-100-5": bandit(100, 5, 78.3, 78.7, **HUNDRED),
    "bandit-100-10": bandit(100, 10, 83.0, 83.5, **{**HUNDRED, "chunk": None}),
    "bandit-100-50": bandit(100, 50, 84.5, 84.9, **{**HUNDRED, "entropy": 0.003, "steps": 1600}),
    "bandit-500-5": bandit(500, 5, 401, 401.6, **FIVE_HUNDRED),
    "mdp-10": Setting("rl2-mdps", {}, 156, 156.2, 1800),
    "mdp-25": Setting(
        "rl2-mdps", {"episodes": 25, "steps": 150, **FINE, "rate": 3e-4}, 445, 445.7, 3600, after="mdp-10"
    ),
    "mdp-25-fresh": Setting("rl2-mdps", {"episodes": 25}, 445, 445.7, 3600),
    "mdp-50": Setting(
        "rl2-mdps",
        {"episodes": 50, "steps": 60, "trials": 128, **FINE, "rate": 2e-4},
        930,
        936.1,
        7200,
        after="mdp-25-fresh",
    ),
    "gridnavi": Setting("rl2-gridnavi", limit=600, aims=by_episode, seeds=THREE),
    "navigation": Setting("maml-navigation", limit=600, aims=after_steps),
    "arm": Setting("rl2-arm", limit=1800, aims=gap_closed),
}


def trained(name: str, seed: int, runs: Path, mode: str) -> tuple[Path, float]:
    """The folder of the finished run of a setting, and the seconds that it took with those that it goes on from."""
    setting, start, before = SETTINGS[name], {}, 0.0
    if setting.after:
        folder, before = trained(setting.after, seed, runs, mode)
        start = {"start": folder.absolute()}
    folder = runs / f"{name}-{seed}"
    summary = execute(find(setting.recipe)(seed=seed, **setting.options, **start), folder, progress(mode))
    return folder, before + summary["seconds"]


def rows_of(name: str, setting: Setting, runs: Path, mode: str) -> list[dict[str, Any]]:
    """Trains what is not trained yet, and gives a row for each agent."""
    returns: dict[str, list[np.ndarray]] = {}
    aims: dict[str, list[tuple[float, float]]] = {}
    seconds, notes, pairs = 0.0, [], {}
    for seed in setting.seeds:
        folder, took = trained(name, seed, runs, mode)
        seconds += took
        conclusion = Conclusion.load(folder / CONCLUSION)
        notes = conclusion.notes
        pairs = {row.against: row.name for row in conclusion.paired}
        for what, found in (setting.aims(conclusion) if setting.aims else {}).items():
            aims.setdefault(what, []).append(found)
        for agent, scores in conclusion.scores.items():
            returns.setdefault(agent, []).append(scores["return"])
    rows = []
    for agent, found in returns.items():
        mean = interval(np.concatenate(found))
        told = notes if not rows else []
        if told and len(found) > 1:
            each = ", ".join(f"{np.mean(scores):.3f}" for scores in found)
            told = [
                f"Seeds {', '.join(map(str, setting.seeds))} gain {each}. Intervals are over the trials "
                f"of all and say nothing of other trainings; the notes below are of seed {setting.seeds[-1]}.",
                *told,
            ]
        rows.append(
            {
                "method": agent.replace("RL²", "rl2"),
                "setting": name,
                "return": round(float(mean.mean), 4),
                "ci95": [round(float(mean.lo), 4), round(float(mean.hi), 4)],
                "trials": mean.n,
                "seeds": list(setting.seeds),
                "seconds": round(seconds / len(setting.seeds), 1),
                "command": setting.command,
                "target": setting.target if agent == "RL²" else None,
                "published": setting.published if agent == "RL²" else None,
                "limit": setting.limit,
                "aims": [
                    {"what": what, "least": each[0][1], "found": [round(float(found), 3) for found, _ in each]}
                    for what, each in (aims if not rows else {}).items()
                ],
                "behind": behind(agent, pairs[agent], returns) if agent in pairs else None,
                "notes": told,
            }
        )
        print(f"{name:15}{agent:32}{mean.mean:10.3f} [{mean.lo:.3f}, {mean.hi:.3f}]", flush=True)
    return rows


def behind(agent: str, other: str, returns: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """By how much an agent gains less than another in the same trials."""
    gain = paired(*(np.concatenate(returns[name]) for name in (other, agent)))
    mean, *ci95 = (round(float(each), 4) for each in (gain.mean, gain.lo, gain.hi))
    return {"of": other.replace("RL²", "rl2"), "mean": mean, "ci95": ci95}


INTRODUCTION = (
    "Written by `python -m benchmarks.meta_rl`; machines, versions and rows are in `benchmarks/results/meta_rl.json`.",
    "Seconds: training and judging together, the mean of the seeds, with those of the run that a training goes on",
    "from; each had one core, and other work beside it. The last column is by how much an agent gains less than the",
    "one it is compared with, in the same trials. `--start runs/X` stands for the run of section X.",
)
HEAD = ("| agent | return | 95 % interval | units | less than |", "|---|---|---|---|---|")


def page(rows: list[dict[str, Any]]) -> str:
    """The page of the documentation."""
    lines = ["# Meta-RL: results", "", *INTRODUCTION, ""]
    for setting in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == setting]
        lines += [
            f"## {setting}",
            "",
            f"{_about(mine[0])}.",
            "",
            "| agent | return | 95 % interval | units | less than |",
        ]
        lines += ["|---|---|---|---|---|", *(_line(row) for row in mine), ""]
        lines += [*(f"- {note}" for row in mine for note in row["notes"]), ""]
    return "\n".join(lines)


def _about(first: dict[str, Any]) -> str:
    """What was run and what was wanted, from the first row of a setting."""
    said = [f"`{first['command']}`, seeds {first['seeds']}, {first['seconds']:.0f} s"]
    if first.get("limit"):
        said[0] += f" (at most {first['limit']:.0f} wanted{'' if first['seconds'] <= first['limit'] else ': missed'})"
    if first["target"]:
        short = first["target"] - first["return"]
        reached = "reached" if short <= 0 else f"missed by {short:.3g}"
        if short <= 0 and first["ci95"][0] < first["target"]:
            reached += ", and within the interval"
        said += [f"published {first['published']:g}", f"target {first['target']:g}, {reached}"]
    for aim in first.get("aims", []):
        reached = "reached" if min(aim["found"]) >= aim["least"] else "missed"
        found = ", ".join(f"{each:.4g}" for each in aim["found"])
        said.append(f"{aim['what']}: {found}, at least {aim['least']:g} wanted, {reached}")
    return "; ".join(said)


def _line(row: dict[str, Any]) -> str:
    lo, hi = row["ci95"]
    cells = [row["method"], f"{row['return']:.3f}", f"{lo:.3f} to {hi:.3f}", f"{row['trials']:,}", ""]
    if less := row.get("behind"):
        lo, hi = less["ci95"]
        cells[-1] = f"{less['of']} {less['mean']:+.3f} [{lo:+.3f}, {hi:+.3f}]"
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Every setting that is asked for; both files are written after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--runs", type=Path, default=Path("runs/meta-rl"))
    parser.add_argument("--progress", default="auto", choices=["auto", "plain", "silent"])
    arguments = parser.parse_args()
    runtime.setup()
    for name in arguments.only:
        rows = rows_of(name, SETTINGS[name], arguments.runs, arguments.progress)
        # written after each setting, so that what is done is kept; read just before, as others may write, too
        there = read_json(RESULTS) if RESULTS.exists() else {"machines": {}, "rows": []}
        others = [row for row in there["rows"] if row["setting"] != name]
        order = list(SETTINGS)
        there = {
            "machines": {**there["machines"], name: machine()},
            "rows": sorted([*others, *rows], key=lambda row: order.index(row["setting"])),
        }
        write_json(RESULTS, there)
        write_text(PAGE, page(there["rows"]))


if __name__ == "__main__":
    main()
