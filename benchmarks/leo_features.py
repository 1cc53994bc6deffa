"""LEO beside its rivals, all on the features of one network: `METATOWER_DATA=FOLDER python -m benchmarks.leo_features`.

LEO's published numbers rest on features of a WRN-28-10 that cannot be had here. What can be asked is whether LEO gains
over others *on the same features*: those of a Conv-4 trained on the 64 training classes of mini-ImageNet at 32 pixels a
side (`benchmarks/plain_features.py`). Everything is trained on features of the training classes, chosen on the 16
validation classes, and judged once on the same tasks of the 20 test classes, so that differences are paired.

Each method tries the settings in `METHODS`, and trains its best one again from other seeds. A training keeps what was
best on validation tasks (Rusu et al. 2019, appendix B). Network, features and trained learners are kept in `--runs` and
not made twice, so the command can be stopped and given again. Writes `benchmarks/results/leo-features.json` and
`docs/leo.md`.
"""

import argparse
import dataclasses
import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from benchmarks.feature_tasks import FeatureTasks
from benchmarks.leo_page import page
from benchmarks.machine import machine
from benchmarks.plain_features import features
from metatower.core import Constant, Learner, Positive, lift
from metatower.core.errors import UserError
from metatower.evaluation.episodes import evaluate
from metatower.evaluation.statistics import interval, paired
from metatower.learners import R2D2, LogisticRegression, NearestCentroid, NearestNeighbour, PrototypicalNetwork
from metatower.learners.anil import anil
from metatower.learners.leo import leo
from metatower.learners.maml import maml
from metatower.nets.mlp import MLP
from metatower.nets.supervised import Supervised, cross_entropy
from metatower.rules import adam, anneal, clip
from metatower.training import load_arrays, runtime, save_arrays, train
from metatower.training.files import write_json, write_text
from metatower.training.progress import Progress, progress

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "leo-features.json", HERE.parent / "docs" / "leo.md"
WAYS, QUERIES, INNER_STEPS = 5, 15, 5
BATCH = 6
"""Tasks per training step, of `WAYS` ways; of more ways as many fewer."""
TEST, VALIDATION = 0, 1
"""Seeds of the tasks that are judged on, and of those that settings are chosen on."""
LEO = "LEO"
BEST = "best.safetensors"
Setting = dict[str, float]


class Scaled(eqx.Module):
    """A network on features of mean square 1 instead of length 1, what its starting weights are made for."""

    net: MLP

    def __call__(self, x: Float[Array, "n feature"]) -> Float[Array, "n output"]:
        return self.net(x * x.shape[1] ** 0.5)


@dataclass(frozen=True)
class Method:
    """A learner of features, the settings it may have, and how it is trained.

    Args:
        make: the learner with fresh numbers, from the number of features, a key and a setting.
        settings: `rate` is Adam's, `ways` those of training tasks; the rest goes to `make`. Each trained method has
            four, so that none is tuned better than another.
        trained: False for what fits itself to a task and has nothing to learn beforehand.
        norm: to which the meta-gradient is scaled down.
        finished: makes a trained learner ready to answer.
    """

    make: Callable[[int, PRNGKeyArray, Setting], Learner]
    settings: tuple[Setting, ...] = ({},)
    trained: bool = True
    norm: float = 10.0
    finished: Callable[[Any], Learner] = lambda learner: learner


def identity(x: Float[Array, "n feature"]) -> Float[Array, "n feature"]:
    """The features themselves."""
    return x


def _fixed(number: float) -> Constant:
    return Constant(jnp.float32(number))  # an array: settings that differ in numbers only share their programs


def _leo(size: int, key: PRNGKeyArray, s: Setting) -> Learner:
    terms = {"kl": _fixed(s["kl"]), "orthogonality": _fixed(s["orthogonality"])}
    return leo(Constant(identity), size, key=key, dropout=s["dropout"], **terms)


def _objective(size: int, key: PRNGKeyArray) -> Supervised:
    return Supervised(Scaled(MLP((size, 128, WAYS), key=key)), cross_entropy)


def _maml(size: int, key: PRNGKeyArray, s: Setting) -> Learner:
    return maml(_objective(size, key), _fixed(s["inner"]), INNER_STEPS)


def _anil(size: int, key: PRNGKeyArray, s: Setting) -> Learner:
    return anil(_objective(size, key), lambda o: o.net.net.layers[-1], _fixed(s["inner"]), INNER_STEPS)


def _prototypical(*hidden: int) -> Callable[[int, PRNGKeyArray, Setting], Learner]:
    def make(size, key, s):
        return PrototypicalNetwork(Scaled(MLP((size, *hidden, size), key=key)), scale=Positive(s["scale"]))

    return make


def _of(names: str, *rows: Sequence[float]) -> tuple[Setting, ...]:
    return tuple(dict(zip(names.split(), row, strict=True)) for row in rows)


_INNER = _of("rate inner", (1e-3, 0.05), (1e-3, 0.2), (1e-3, 0.8), (3e-3, 0.2))
_SCALE = _of("rate ways scale", (3e-4, 5, 0.1), (1e-3, 5, 0.1), (1e-3, 15, 0.1), (1e-3, 15, 0.01))
METHODS = {
    LEO: Method(
        _leo,
        _of(
            "rate dropout kl orthogonality",
            (1e-3, 0.3, 0.756, 0.188),
            (1e-3, 0.3, 0.01, 0.1),
            (3e-3, 0.3, 0.01, 0.1),
            (1e-3, 0.5, 0.01, 0.1),
        ),
        norm=0.1,
        finished=lambda learner: dataclasses.replace(learner, sampling=False),
    ),
    "MAML": Method(_maml, _INNER),
    "ANIL": Method(_anil, _INNER),
    "Prototypical Network, linear": Method(_prototypical(), _SCALE),
    "Prototypical Network, MLP": Method(_prototypical(256), _SCALE),
    "nearest centroid": Method(lambda *_: NearestCentroid(identity), trained=False),
    "ridge regression": Method(
        lambda _, __, s: R2D2(identity, _fixed(s["penalty"]), 10.0, 0.0),
        _of("penalty", (0.01,), (0.1,), (1.0,), (10.0,), (100.0,)),
        trained=False,
    ),
    "logistic regression": Method(
        lambda _, __, s: LogisticRegression(identity, _fixed(s["penalty"])),
        _of("penalty", (0.01,), (0.1,), (1.0,), (10.0,), (100.0,)),
        trained=False,
    ),
    "nearest neighbour": Method(lambda *_: NearestNeighbour(identity), trained=False),
}
"""LEO's first setting has the weights of the loss of Rusu et al. 2019, 1-shot; the other terms keep their defaults."""


@dataclass(frozen=True)
class Asked:
    """What the results depend on.

    Args:
        data: the file `miniimagenet32.npz`, or another with its arrays.
        runs: where network, features and trained learners are kept.
        network_steps, channels: of the plain network's training, and of its blocks.
        steps, every: training steps of a learner, and how often it is validated.
        episodes, validated_on: test tasks, and validation tasks.
        seeds: of the trainings; settings are chosen with the first.
        tries: settings per method, all if None.
        methods, shots: what is compared; LEO is always there.
    """

    data: Path
    runs: Path
    network_steps: int = 3000
    channels: tuple[int, ...] = (64, 64, 64, 64)
    steps: int = 1000
    every: int = 250
    episodes: int = 1000
    validated_on: int = 400
    seeds: tuple[int, ...] = (0, 1)
    tries: int | None = None
    methods: tuple[str, ...] = tuple(METHODS)
    shots: tuple[int, ...] = (1, 5)

    def __post_init__(self):
        unknown = sorted(set(self.methods) - set(METHODS))
        if unknown or LEO not in self.methods:
            raise UserError(f"Expected {LEO} and others of {', '.join(METHODS)}; got {', '.join(self.methods)}.")
        if self.every < 1 or self.steps < self.every or not self.seeds:
            raise UserError("Expected at least one seed, and at least as many steps as are taken between validations.")


def validated(learner: Learner, tasks: FeatureTasks, asked: Asked) -> float:
    """Accuracy in % on tasks of the validation classes."""
    return 100 * float(evaluate(learner, tasks, episodes=asked.validated_on, seed=VALIDATION)["accuracy"].mean())


def trained(
    name: str, setting: Setting, seed: int, tasks: dict[str, FeatureTasks], folder: Path, asked: Asked, show: Progress
) -> tuple[Learner, dict[str, Any]]:
    """The learner as it was when it was best on validation tasks, and what is said of it; resumes in `folder`.

    Returns:
        The learner, ready to answer, and its `history` (validation accuracy in % after every `every` steps) and
        `seconds` (of the processor).
    """
    method, like = METHODS[name], tasks["train"]
    how = {"setting": setting, "seed": seed, "shots": like.shots, "steps": asked.steps, "every": asked.every}
    how |= {"validated_on": asked.validated_on, "network": [asked.network_steps, *asked.channels]}
    best = method.make(like.vectors.shape[-1], jax.random.key(seed), setting)
    rule = anneal(clip(adam(jnp.float32(setting["rate"])), method.norm), begin=asked.steps // 2, end=asked.steps)
    ways = int(setting.get("ways", WAYS))
    trainer, practice = lift(best, rule, batch=BATCH * WAYS // ways), dataclasses.replace(like, ways=ways)
    history, seconds = [], 0.0
    if (folder / BEST).exists():
        best, about = load_arrays(folder / BEST, best)
        if about["how"] != how:
            raise UserError(f"{folder} holds a training of other settings. Choose another --runs, or remove it.")
        history, seconds = about["history"], about["seconds"]
    for end in range(asked.every * (len(history) + 1), asked.steps + 1, asked.every):
        began = time.process_time()
        state = train(
            trainer, practice, steps=end, seed=seed, folder=folder, config=how, title=folder.name, show=show, devices=1
        )
        learner = trainer.result(state).learner
        history.append(round(validated(method.finished(learner), tasks["val"], asked), 3))
        best = learner if history[-1] == max(history) else best
        seconds = round(seconds + time.process_time() - began, 1)  # as it is kept, so that a second call says the same
        save_arrays(folder / BEST, best, {"how": how, "history": history, "seconds": seconds})
    return method.finished(best), {"history": history, "seconds": seconds}


def chosen(name: str, tasks: dict[str, FeatureTasks], asked: Asked, show: Progress) -> tuple[list[Learner], dict]:
    """A learner for every seed in the setting that is best on validation tasks, and what is said of them."""
    method, shots = METHODS[name], tasks["train"].shots
    settings = method.settings[: asked.tries]
    if not method.trained:
        made = [method.make(tasks["train"].vectors.shape[-1], jax.random.key(0), setting) for setting in settings]
        scores = [validated(learner, tasks["val"], asked) for learner in made]
        which = int(np.argmax(scores))
        return [made[which]], _about(settings[which], scores, [], 0.0)

    def one(i, seed):
        folder = asked.runs / f"{name.lower().replace(', ', '-').replace(' ', '-')}-{shots}-shot-{i}-{seed}"
        return trained(name, settings[i], seed, tasks, folder, asked, show)

    tried = [one(i, asked.seeds[0]) for i in range(len(settings))]
    scores = [max(about["history"]) for _, about in tried]
    which = int(np.argmax(scores))
    found = [tried[which], *(one(which, seed) for seed in asked.seeds[1:])]
    spent = sum(about["seconds"] for _, about in [*tried, *found[1:]])
    return [learner for learner, _ in found], _about(settings[which], scores, list(asked.seeds), spent)


def _about(setting: Setting, scores: list[float], seeds: list[int], seconds: float) -> dict[str, Any]:
    scores = [round(score, 2) for score in scores]
    return {"chosen": setting, "validation": max(scores), "tried": scores, "seeds": seeds, "seconds": round(seconds)}


def compared(asked: Asked, show: Progress) -> list[dict[str, Any]]:
    """A row for every method and number of shots: test accuracy, and by how much LEO is better on the same tasks."""
    vectors = features(
        asked.data, steps=asked.network_steps, seed=0, channels=asked.channels, folder=asked.runs, show=show
    )
    rows = []
    for shots in asked.shots:
        tasks = {split: FeatureTasks(each, WAYS, shots, QUERIES) for split, each in vectors.items()}
        found, about = {}, {}
        for name in asked.methods:
            learners, about[name] = chosen(name, tasks, asked, show)
            how: dict[str, Any] = {"episodes": asked.episodes, "seed": TEST, "show": show, "title": f"judging {name}"}
            found[name] = 100 * np.stack([evaluate(each, tasks["test"], **how)["accuracy"] for each in learners])
        for name, each in found.items():
            mean, gap = interval(each.mean(axis=0)), paired(found[LEO].mean(axis=0), each.mean(axis=0))
            row = {"method": name, "shots": shots, "accuracy": round(mean.mean, 2)}
            row |= {"ci95": [round(mean.lo, 2), round(mean.hi, 2)], "of_each_seed": each.mean(axis=1).round(2).tolist()}
            if name != LEO:
                row |= {"leo_minus": round(gap.mean, 2), "leo_minus_ci95": [round(gap.lo, 2), round(gap.hi, 2)]}
            rows.append({**row, **about[name]})
    return rows


def main() -> None:
    """Trains what is not there yet, judges all of it, and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs") / "leo-features", help="what is kept between calls")
    parser.add_argument("--shots", type=int, nargs="*", default=[1, 5], help="pictures of each class to learn from")
    parser.add_argument("--without", nargs="*", default=[], choices=[*METHODS], help="methods to leave out")
    parser.add_argument("--progress", default="auto")
    given = parser.parse_args()
    runtime.setup()
    file = Path(os.environ.get("METATOWER_DATA", ".")) / "miniimagenet32.npz"
    methods = tuple(name for name in METHODS if name not in given.without)
    asked = Asked(file, given.runs, methods=methods, shots=tuple(given.shots))
    rows = compared(asked, progress(given.progress))
    how = {each.name: getattr(asked, each.name) for each in dataclasses.fields(asked)}
    command = ["python", "-m", "benchmarks.leo_features"]
    command += ["--shots", *map(str, given.shots)] if given.shots != [1, 5] else []
    command += ["--without", *given.without] if given.without else []
    content = {"command": shlex.join(command), **machine()}
    content |= {name: how[name] for name in ("network_steps", "channels", "steps", "every", "episodes", "validated_on")}
    content |= {"ways": WAYS, "queries": QUERIES, "batch": BATCH, "rows": rows}
    write_json(RESULTS, content)
    write_text(PAGE, page(content))


if __name__ == "__main__":
    main()
