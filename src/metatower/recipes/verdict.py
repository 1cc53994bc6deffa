"""How recipes at storey 2 judge what they have trained beside its baselines: on the same held-out distributions."""

from collections.abc import Mapping, Sequence

from metatower.core import Learner
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.episodes import adaptation_scores, judged_on
from metatower.evaluation.statistics import interval
from metatower.recipes.maml_baselines import CHUNK, MAMLBaselines
from metatower.training.progress import Progress


def verdict(
    recipe: MAMLBaselines,
    contestants: Mapping[str, Learner],
    drawn: Sequence[str],
    notes: list[str],
    show: Progress,
) -> Conclusion:
    """All contestants after whole runs on the recipe's held-out families; the first is compared with all others.

    Args:
        drawn: names of those whose curve is drawn beside that of the first.
        notes: what exactly was run.
    """
    ours, *others = contestants
    conclusion = Conclusion(notes=notes)
    for label, family in recipe.judged_on().items():
        for name, learner in contestants.items():
            scores = recipe._judge(learner, family, recipe.episodes, recipe.seed, show, f"judging: {name}{label}")
            conclusion.add(name + label, scores, "distribution")
        conclusion.compare(ours + label, *(name + label for name in others))
    conclusion.figures["runs"] = curves(recipe, {name: contestants[name] for name in (ours, *drawn)}, show)
    return conclusion


def curves(recipe: MAMLBaselines, learners: Mapping[str, Learner], show: Progress) -> Curves:
    """Loss or accuracy on held-out distributions after every meta-step of a fresh run, up to twice its length."""
    series = {}
    for name, learner in learners.items():
        found = adaptation_scores(
            judged_on(learner, recipe.judged),
            recipe.held_out(),
            episodes=min(recipe.episodes, CHUNK),
            seed=recipe.seed,
            steps=2 * recipe.meta_steps,
            chunk=CHUNK,
            show=show,
            title=f"run by run: {name}",
        )
        series[name] = interval(found[recipe.metric])
    return Curves(
        f"At work on a distribution that it has never seen: {recipe.metric} on fresh tasks of it after every "
        f"meta-step. Storey 2 was trained for runs of {recipe.meta_steps}; what lies beyond is extrapolation.",
        "meta-steps on the new distribution",
        recipe.metric if recipe.metric == "accuracy" else "mean squared error",
        series,
        log=recipe.metric == "loss",
    )
