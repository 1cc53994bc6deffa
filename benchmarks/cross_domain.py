"""From one kind of picture to another: `METATOWER_DATA=FOLDER python -m benchmarks.cross_domain`.

The Prototypical Networks that come with the package, trained on Omniglot and on letters drawn by fonts, name pictures
of kinds that they have never seen, beside what a person would try first: logistic regression and nearest neighbour, on
pixels and on the features of the same network. 5 ways, 1 and 5 shots, 15 queries per class; the same 1,000 tasks for
all, so that differences are paired. Writes `benchmarks/results/cross-domain.json` and `docs/cross-domain.md`.
"""

import argparse
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from benchmarks.feature_tasks import FeatureTasks
from benchmarks.machine import machine
from metatower.adapters.pictures import prepared
from metatower.core import Learner, Tasks
from metatower.core.errors import UserError
from metatower.evaluation.episodes import evaluate
from metatower.evaluation.statistics import interval, paired, verdict
from metatower.learners import LogisticRegression, NearestNeighbour
from metatower.learners.features import FeatureLearner, unit
from metatower.learners.nearest import flat
from metatower.nets.norm import norms
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
SOURCES = {"Omniglot": "prototypical-omniglot", "glyphs": "prototypical-glyphs"}
MINE = "Prototypical Network"
BATCH = 500
"""Pictures that a network looks at together."""


class InSpan(FeatureLearner):
    """Logistic regression on many features of few examples, in the coordinates of the space that these span.

    The penalty takes whatever lies outside that space out of the weights, so that the answers are those of
    `LogisticRegression(net)`; the systems to be solved have 26 columns instead of 785.
    """

    net: Any
    head: LogisticRegression

    def fit(self, features: Float[Array, "n feature"], own: Float[Array, "n way"]) -> tuple[Array, Array]:
        axes, _ = jnp.linalg.qr(unit(features).T)
        return axes, self.head.fit(unit(features) @ axes, own)

    def logits(self, head: tuple[Array, Array], features: Float[Array, "n feature"]) -> Float[Array, "n way"]:
        return self.head.logits(head[1], unit(features) @ head[0])


PIXELS: dict[str, Learner] = {
    "logistic regression on pixels": InSpan(flat, LogisticRegression(flat, normalise=False)),
    "nearest neighbour on pixels": NearestNeighbour(),
}


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


def identity(x: Float[Array, "n feature"]) -> Float[Array, "n feature"]:
    """The features themselves."""
    return x


def in_features(net: Any, tasks: Episodes) -> FeatureTasks:
    """The same tasks of what a network says of the pictures, each looked at once.

    Raises:
        UserError: the network has norms for which it matters beside which others a picture is looked at.
    """
    if any(norm.mode != "running" for norm in norms(net)):
        raise UserError("Expected a network whose norms are in the mode 'running': others see pictures side by side.")
    turns = range(4 if tasks.rotations else 1)
    images = np.stack([np.rot90(tasks.images, turn, axes=(2, 3)) for turn in turns], axis=1)
    flat_images = images.reshape(-1, *images.shape[3:])
    say = eqx.filter_jit(lambda net, x: net(x.astype(jnp.float32) / 255))
    said = [np.asarray(say(net, flat_images[i : i + BATCH])) for i in range(0, len(flat_images), BATCH)]
    vectors = np.concatenate(said).reshape(tasks.classes, images.shape[2], -1)
    return FeatureTasks(vectors, tasks.ways, tasks.shots, tasks.queries, jnp.repeat(tasks.count, len(turns)))


def on_features(learner: Any) -> dict[str, Learner]:
    """A trained learner and the plain ones, on the features of its network."""
    return {
        MINE: dataclasses.replace(learner, net=identity),
        "logistic regression on its features": LogisticRegression(identity),
        "nearest neighbour on its features": NearestNeighbour(identity),
    }


def accuracies(
    contestants: dict[str, Learner], tasks: Tasks, seed: int, mode: str, where: str
) -> dict[str, np.ndarray]:
    """In %, of every contestant on every task."""
    how: dict[str, Any] = {"episodes": EPISODES, "seed": seed, "show": progress(mode)}
    return {
        name: 100 * evaluate(each, tasks, **how, title=f"{where}: {name}")["accuracy"]
        for name, each in contestants.items()
    }


def rows(source: str, target: str, shots: int, found: dict[str, np.ndarray]) -> list[dict]:
    """A row for every contestant; that of the Prototypical Network says how far it is ahead of the plain ones."""
    made = []
    for name, values in found.items():
        mean = interval(values)
        row = {"source": source, "target": target, "shots": shots, "name": name, "accuracy": round(mean.mean, 2)}
        row["ci95"] = [round(mean.lo, 2), round(mean.hi, 2)]
        if name == MINE:
            for kind in ("pixels", "features"):
                best = max((each for each in found if each.endswith(kind)), key=lambda each: found[each].mean())
                gap = paired(values, found[best])
                difference = {"difference": round(gap.mean, 2), "ci95": [round(gap.lo, 2), round(gap.hi, 2)]}
                row[f"over_{kind}"] = {"against": best, **difference}
        made.append(row)
    return made


def page(content: dict) -> str:
    """The page of the documentation."""
    lines = [
        "# From one kind of picture to another",
        "",
        f"Accuracy in %, {WAYS} ways, {QUERIES} queries per class, {EPISODES:,} tasks (the unit of replication), seed "
        f"{content['seed']}, with 95 % intervals; written by `{content['command']}`. The last columns compare the "
        "Prototypical Network with the better of the two plain ones, on pixels and on its own features, on the same "
        "tasks. Digits and signs have ten classes each, so that tasks share classes, and the intervals are over tasks "
        "of these ten. Both networks come with the package (`src/metatower/weights`, with their cards); there is one "
        "training of each, and no interval says how much another would differ.",
        "",
        "| trained on | tested on | shots | " + " | ".join(content["names"]) + " | gain over pixels | over features |",
        "|---|---|---|" + "---|" * (len(content["names"]) + 2),
    ]
    groups: dict[tuple, list[dict]] = {}
    for row in content["rows"]:
        groups.setdefault((row["source"], row["target"], row["shots"]), []).append(row)
    for (source, target, shots), group in groups.items():
        cells = [f"{row['accuracy']:.1f} ± {(row['ci95'][1] - row['ci95'][0]) / 2:.1f}" for row in group]
        cells += [_gain(group[0][f"over_{kind}"]) for kind in ("pixels", "features")]
        lines.append(f"| {source} | {target} | {shots} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _gain(over: dict) -> str:
    lo, hi = over["ci95"]
    return f"{over['difference']:+.1f} [{lo:+.1f}, {hi:+.1f}]" + (
        "" if lo > 0 else f": {verdict((lo, hi), 'accuracy')}"
    )


def main() -> None:
    """Every source on every target that it was not trained on; both files are written at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--progress", default="auto")
    given = parser.parse_args()
    runtime.setup(1)  # LAPACK can wait for ever in programs for several CPU devices (jax 0.10)
    learners: dict[str, Any] = {source: find_learner(name).learner for source, name in SOURCES.items()}
    made: dict[str, list[dict]] = {source: [] for source in SOURCES}
    for target, tasks_of in TARGETS.items():
        said = {s: in_features(each.net, tasks_of(1)) for s, each in learners.items() if s != target}
        for shots in (1, 5):
            pixels = accuracies(PIXELS, tasks_of(shots), given.seed, given.progress, target)
            for source, tasks in said.items():
                tasks = dataclasses.replace(tasks, shots=shots)
                where = f"{source} to {target}"
                found = accuracies(on_features(learners[source]), tasks, given.seed, given.progress, where)
                made[source] += rows(source, target, shots, {**found, **pixels})
    found = [row for each in made.values() for row in each]
    content = {"command": "python -m benchmarks.cross_domain", "seed": given.seed, **machine()}
    content |= {"names": list(dict.fromkeys(row["name"] for row in found)), "rows": found}
    write_json(RESULTS, content)
    write_text(PAGE, page(content))


if __name__ == "__main__":
    main()
