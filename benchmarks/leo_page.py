"""The page of the documentation that `benchmarks.leo_features` writes."""

from typing import Any

from metatower.evaluation.statistics import verdict

PUBLISHED = (
    ("LEO on features of a WRN-28-10 (Rusu et al. 2019, table 1)", "61.76 ± 0.08", "77.59 ± 0.12"),
    ("MAML, a Conv-4 of its own (Finn et al. 2017)", "48.70 ± 1.84", "63.11 ± 0.92"),
    ("LEO over MAML, not on the same features", "+13.06", "+14.48"),
    ("Meta-SGD on LEO's features (as run by Rusu et al.)", "54.24 ± 0.03", "70.86 ± 0.04"),
    ("LEO over Meta-SGD, on the same features", "+7.52", "+6.73"),
)
"""Test accuracy in %, mini-ImageNet at full size, 5-way 1-shot and 5-shot."""


def page(content: dict[str, Any]) -> str:
    """The page, from what is in `benchmarks/results/leo-features.json`."""
    rows = content["rows"]
    shots = list(dict.fromkeys(row["shots"] for row in rows))
    lines = [
        "# LEO on the features of one network",
        "",
        "Does LEO gain over simpler learners that are given the *same* features? Accuracy in % on tasks of the 20 test "
        f"classes of mini-ImageNet at 32 x 32 pixels, {content['ways']} ways, {content['queries']} queries per class, "
        f"{content['episodes']:,} tasks, with 95 % intervals over tasks (the unit of replication; tasks share the 20 "
        "classes, and there is one network). Differences are paired, on the same tasks. Written by "
        f"`METATOWER_DATA=FOLDER {content['command']}` (`benchmarks/results/leo-features.json`).",
        "",
        "| | " + " | ".join(f"{each}-shot | LEO is better by" for each in shots) + " |",
        "|---|" + "---|---|" * len(shots),
    ]
    for name in dict.fromkeys(row["method"] for row in rows):
        cells = [cell for each in shots for cell in _cells(_of(rows, name, each))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *_said(rows, shots), "", "Published, at full size:", "", "| | 1-shot | 5-shot |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in PUBLISHED]
    lines += ["", "## Protocol", "", *_protocol(content), "", "## Chosen on validation tasks", ""]
    lines += ["| | shots | setting | validation, % | test, each seed, % | processor, s |", "|---|---|---|---|---|---|"]
    for row in rows:
        setting = ", ".join(f"{name} {number:g}" for name, number in row["chosen"].items()) or "none"
        seeds = ", ".join(f"{each:.2f}" for each in row["of_each_seed"])
        lines.append(
            f"| {row['method']} | {row['shots']} | {setting} | {row['validation']:.2f} | {seeds} | {row['seconds']} |"
        )
    return "\n".join([*lines, ""])


def _of(rows, name, shots):
    return next(row for row in rows if row["method"] == name and row["shots"] == shots)


def _cells(row):
    lo, hi = row["ci95"]
    accuracy = f"{row['accuracy']:.2f} [{lo:.2f}, {hi:.2f}]"
    if "leo_minus" not in row:
        return f"**{accuracy}**", ""
    lo, hi = row["leo_minus_ci95"]
    said = "" if lo > 0 else f": {verdict((lo, hi), 'accuracy')}"
    return accuracy, f"{row['leo_minus']:+.2f} [{lo:+.2f}, {hi:+.2f}]{said}"


def _said(rows, shots):
    """One sentence per number of shots, made from the intervals."""
    for each in shots:
        others = [row for row in rows if row["shots"] == each and "leo_minus" in row]
        names = {
            "better than": [row["method"] for row in others if row["leo_minus_ci95"][0] > 0],
            "worse than": [row["method"] for row in others if row["leo_minus_ci95"][1] < 0],
            "not to be told from": [
                row["method"] for row in others if row["leo_minus_ci95"][0] <= 0 <= row["leo_minus_ci95"][1]
            ],
        }
        parts = [f"{how} {', '.join(found)}" for how, found in names.items() if found]
        yield f"- {each}-shot: on these features, over tasks, LEO is {'; '.join(parts)}."
        seeds = {row["method"]: row["of_each_seed"] for row in rows if row["seeds"] and row["shots"] == each}
        apart = {name: max(found) - min(found) for name, found in seeds.items()}
        widest = max(apart, key=lambda name: apart[name])
        yield (
            f"- The intervals do not cover seeds, which are few: those of {widest} lie {apart[widest]:.2f} apart, and "
            "smaller differences may not come again."
        )


def _protocol(content):
    channels = "-".join(map(str, content["channels"]))
    return [
        f"- **Features**: a Conv-4 ({channels} channels, pooling) trained for {content['network_steps']:,} steps of 64 "
        "pictures to tell the 64 training classes apart (100 pictures of each; mirrored, shifted, brightened at "
        "random; gradient descent with Nesterov's momentum, cosine from 0.05, weight decay 5e-4; seed 0; "
        "`benchmarks/plain_features.py`). What it says before its head, at length 1. The paper's network was a "
        "WRN-28-10 at 84 x 84 pixels, trained on 600 pictures of each class. Pictures and weights are under "
        "ImageNet's terms, for research only: none are shipped.",
        f"- **Training** of the learners on features of the training classes: {content['batch']} tasks of 5 ways a "
        f"step, {content['steps']:,} steps of Adam, the rate falling along a cosine in the second half; of the states "
        f"after every {content['every']:,} steps the best on {content['validated_on']:,} validation tasks is kept. The "
        "paper took 100,000 steps of 12 tasks, and its best runs trained on validation classes too. The network has "
        "seen the pictures of the training classes: a task of their features is easier than one of new classes, for "
        "every learner that trains here.",
        "- **Settings**: four for each trained method, chosen on the 16 validation classes with the first seed, and "
        "trained with every seed. The accuracy of a task is the mean over seeds.",
        "- **Rivals**: MAML and ANIL adapt an MLP with 128 hidden units by 5 gradient steps at a fixed rate (of the "
        "mean cross-entropy), ANIL its head only. Prototypical Networks train a linear map, or an MLP with 256 hidden "
        "units. The others fit themselves to a task: nearest centroid (a Prototypical Network without training), "
        "ridge and logistic regression, nearest neighbour by cosine.",
    ]
