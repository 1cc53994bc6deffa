"""From one kind of picture to another: `METATOWER_DATA=FOLDER python -m benchmarks.cross_domain [--glyphs RUN]`.

Prototypical Networks trained on Omniglot (the weights that come with the package) and on letters drawn by fonts (a run
of `metatower train prototypical --on glyphs`) name pictures of kinds that they have never seen, beside what a person
would try first: logistic regression and nearest neighbour, on pixels and on the features of the same network. 5 ways, 1
and 5 shots, 15 queries per class; the same 1,000 tasks for all, so that differences are paired. Writes
`benchmarks/results/cross-domain.json` and `docs/cross-domain.md`.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from metatower.adapters.pictures import prepared
from metatower.core import Learner
from metatower.core.errors import UserError
from metatower.evaluation.episodes import evaluate
from metatower.evaluation.statistics import interval, paired
from metatower.learners import LogisticRegression, NearestNeighbour
from metatower.learners.nearest import flat
from metatower.recipes.learners import find_learner
from metatower.tasks.arrays import from_arrays
from metatower.tasks.episodes import Episodes
from metatower.tasks.omniglot import omniglot
from metatower.training import runtime
from metatower.training.files import write_json, write_text
from metatower.training.progress import progress

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "cross-domain.json", HERE.parent / "docs" / "cross-domain.md"
EPISODES, WAYS, QUERIES = 1000, 5, 15


def strokes(images: np.ndarray, labels: np.ndarray, shots: int) -> Episodes:
    """Tasks of pictures, made bright on dark and 28 pixels a side as for any user of the estimator."""
    return from_arrays(prepared(images, 28, ink=True), labels, ways=WAYS, shots=shots, queries=QUERIES)


def omniglot_test(shots: int) -> Episodes:
    """Characters of the test split of Vinyals et al., quarter turns as classes."""
    return omniglot("test", "vinyals", rotations=True, size=28, ways=WAYS, shots=shots, queries=QUERIES)


def mnist(shots: int) -> Episodes:
    """200 pictures of each digit of MNIST's test set."""
    images = _read("mnist_test200.npz")["images"]
    return strokes(images.reshape(-1, *images.shape[2:]), np.repeat(np.arange(len(images)), images.shape[1]), shots)


def signs(shots: int) -> Episodes:
    """Photographs of hand signs for digits."""
    arrays = _read("sign_digits32.npz")
    return strokes(arrays["images"], arrays["label"], shots)


def digits(shots: int) -> Episodes:
    """scikit-learn's digits, 8 pixels a side."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return strokes(np.uint8(found.images * 255 / 16), found.target, shots)


def _read(name: str) -> dict[str, np.ndarray]:
    with np.load(Path(os.environ["METATOWER_DATA"]) / name, allow_pickle=False) as file:
        return dict(file)


TARGETS: dict[str, Callable[[int], Episodes]] = {
    "Omniglot": omniglot_test,
    "MNIST": mnist,
    "hand signs": signs,
    "digits of scikit-learn": digits,
}
BASELINES: dict[str, Learner] = {
    "logistic regression on pixels": LogisticRegression(flat),
    "nearest neighbour on pixels": NearestNeighbour(),
}


def rows(source: str, learner: Learner, target: str, shots: int, seed: int, mode: str) -> list[dict]:
    """Every contestant on one kind of picture."""
    contestants = {
        "Prototypical Network": learner,
        "logistic regression on its features": LogisticRegression(learner.net),
        "nearest neighbour on its features": NearestNeighbour(learner.net),
        **BASELINES,
    }
    tasks = TARGETS[target](shots)
    found = {
        name: 100
        * evaluate(
            each, tasks, episodes=EPISODES, seed=seed, show=progress(mode), title=f"{source} to {target}: {name}"
        )["accuracy"]
        for name, each in contestants.items()
    }
    mine, best = found["Prototypical Network"], max(BASELINES, key=lambda name: found[name].mean())
    made = []
    for name, values in found.items():
        mean = interval(values)
        row = {"source": source, "target": target, "shots": shots, "name": name, "accuracy": round(mean.mean, 2)}
        row["ci95"] = [round(mean.lo, 2), round(mean.hi, 2)]
        if values is mine:
            difference = paired(mine, found[best])
            row["against"] = best
            row["difference"] = round(difference.mean, 2)
            row["difference_ci95"] = [round(difference.lo, 2), round(difference.hi, 2)]
        made.append(row)
    return made


def page(content: dict) -> str:
    """The page of the documentation."""
    lines = [
        "# From one kind of picture to another",
        "",
        f"Accuracy in %, {WAYS} ways, {QUERIES} queries per class, {EPISODES:,} tasks (the unit of replication), seed "
        f"{content['seed']}, with 95 % intervals; written by `{content['command']}`. The last column compares the "
        "Prototypical Network with the better of the two baselines on pixels, on the same tasks. Digits and signs have "
        "ten classes each, so that tasks share classes, and the intervals are over tasks of these ten.",
        "",
        "| trained on | tested on | shots | " + " | ".join(content["names"]) + " | gain over pixels |",
        "|---|---|---|" + "---|" * (len(content["names"]) + 1),
    ]
    groups: dict[tuple, list[dict]] = {}
    for row in content["rows"]:
        groups.setdefault((row["source"], row["target"], row["shots"]), []).append(row)
    for (source, target, shots), group in groups.items():
        cells = [f"{row['accuracy']:.1f} ± {(row['ci95'][1] - row['ci95'][0]) / 2:.1f}" for row in group]
        lo, hi = group[0]["difference_ci95"]
        gain = f"{group[0]['difference']:+.1f} [{lo:+.1f}, {hi:+.1f}]" + ("" if lo > 0 else ": no gain here")
        lines.append(f"| {source} | {target} | {shots} | {' | '.join(cells)} | {gain} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Every source on every target that it was not trained on; both files are written at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glyphs", type=Path, help="the run of `metatower train prototypical --on glyphs`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--progress", default="auto")
    given = parser.parse_args()
    runtime.setup()
    sources = {"Omniglot": "prototypical-omniglot", **({"glyphs": given.glyphs} if given.glyphs else {})}
    found = []
    for source, where in sources.items():
        learner = find_learner(where).learner
        for target in TARGETS:
            if target != source:
                for shots in (1, 5):
                    found += rows(source, learner, target, shots, given.seed, given.progress)
    if not found:
        raise UserError("There is nothing to compare.")
    names = list(dict.fromkeys(row["name"] for row in found))
    command = "python -m benchmarks.cross_domain" + (" --glyphs runs/prototypical-0" if given.glyphs else "")
    content = {"command": command, "seed": given.seed, **machine(), "names": names, "rows": found}
    write_json(RESULTS, content)
    write_text(PAGE, page(content))


if __name__ == "__main__":
    main()
