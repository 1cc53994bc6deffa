"""What a run of the meta-GAN has shown: compute and memory in sentences, and its ensembles judged."""

import dataclasses
from typing import Any

import jax
import numpy as np

from metatower.core.plan import cost, step_flops
from metatower.evaluation.conclusion import Conclusion
from metatower.evaluation.generated import audit, diversity
from metatower.evaluation.predictions import best_sigma, calibration_error, mixture_nll
from metatower.learners.meta_gan import MetaGAN
from metatower.learners.meta_gan_trainer import MetaGANTrainer
from metatower.tasks.pooled import Pooled
from metatower.training.progress import Progress


def about_memory(recipe: Any, artefact: MetaGAN) -> list[str]:
    """Whether networks are only remembered, and how different draws are."""
    notes, few = [], min(recipe.episodes, 50)
    for label, family in recipe.judged_on().items():
        found = audit(artefact, family, recipe.probes(), episodes=recipe.episodes, seed=recipe.seed)
        before, after = diversity(artefact, family, recipe.probes(), draws=recipe.draws, episodes=few, seed=recipe.seed)
        low, middle, high = np.quantile(found.novelty, (0.05, 0.5, 0.95))
        notes.append(
            f"Memorisation{label}: the distance of an adapted network to the nearest elite, over the elites' median "
            f"distance to theirs ({found.elites_apart:.2f}), is {middle:.2f} in the median, from {low:.2f} to "
            f"{high:.2f} in 90 % of cases; {found.replicas:.0%} are replicas. Draws for one distribution differ by "
            f"{before.mean():.3f} before and {after.mean():.3f} after adaptation (standard deviation of outputs)."
        )
    return notes


def flops_of_step(recipe: Any) -> float:
    """Floating-point operations of a step of storey 2: elites, which few steps make, count by their mean."""
    key, data, trainer = jax.random.key(0), recipe.data(), recipe.learner()
    # what is counted is a step in which elites are made
    one, two = (cost(dataclasses.replace(trainer, fresh=n), data, 2, key, False).flops for n in (1, 2))
    return 2 * one - two + (two - one) * trainer.fresh / trainer.every


def evaluations_of_step(trainer: MetaGANTrainer) -> int:
    """Base-learner gradients in a step of storey 2: of two draws on each task, of the generated networks that both
    players compare with elites, and of elites, two candidates for each, by their mean."""
    played = 2 * trainer.distributions * trainer.tasks * trainer.learner.base.steps
    return played + 2 * trainer.pairs + 2 * trainer.fresh * trainer.long // trainer.every


def about_run(recipe: Any, rates: tuple[float, float]) -> list[str]:
    """What exactly was run, and what each contestant had of compute.

    Args:
        rates: outer rate and momentum that were chosen for pooled MAML.
    """
    ours, pooled = flops_of_step(recipe), step_flops(recipe._pooled_trainer(), Pooled(recipe.data()))
    ratio = (recipe.pooled_steps + recipe.pooled_extra) * pooled / (max(1, recipe.steps) * ours)
    return [
        f"{recipe.steps:,} storey-2 steps of {recipe.distributions} distributions each, {recipe.context} tasks of each "
        f"read, two draws judged on {recipe.tasks} others after one and after {recipe.inner_steps} inner steps, and "
        f"{recipe.pairs} pairs of a generated network and an elite; {recipe.elites} elites of {recipe.long} "
        f"Adam steps. λ_a {recipe.adversarial:g}, λ_d {recipe.diversity:g}, λ_c {recipe.cost:g}. Seed {recipe.seed}.",
        f"Judged on {recipe.episodes} distributions, the same for all, each by {recipe.final_judged} tasks of another "
        f"pool than the {recipe.meta_steps * recipe.meta_batch} that were read, or learned from in K = "
        f"{recipe.meta_steps} meta-steps. Intervals are over distributions, of one training run. The ablations had the "
        "same number of steps.",
        f"Pooled MAML had {ratio:.2f} times the floating-point operations of storey 2; an ensemble of {recipe.draws} "
        f"MAMLs as many as pooled MAML, all together. Outer rate {rates[0]:g} and momentum {rates[1]:g} were the best "
        f"on {recipe.tuned_on} validation distributions. A step of storey 2 is {ours:.2e} operations.",
        "No setting of any contestant was chosen on the distributions that it is judged on.",
    ]


def judge_ensembles(
    recipe: Any, conclusion: Conclusion, ensembles: dict[str, list[Any]], tuning_seed: int, show: Progress
) -> None:
    """Adds how well ensembles know what they do not know, after the inner steps of training.

    Args:
        ensembles: members by name, ours first.
        tuning_seed: of the validation distributions on which the width of each ensemble's density is chosen.
    """
    sigmas = {}
    # one of all the numbers of steps that contestants are judged after: the program is theirs, and compiled already
    which = recipe.after.index(recipe.inner_steps)

    def together(learners, family, episodes, seed, name):
        said = [recipe._predicted(x, family, episodes, seed, show, f"an ensemble: {name}") for x in learners]
        return said[0].truth, np.stack([each.said[:, :, which] for each in said])

    for name, learners in ensembles.items():
        truth, members = together(learners, "validation", recipe.tuned_on, tuning_seed, name)
        sigmas[name] = best_sigma(truth, members)
    for label, family in recipe.judged_on().items():
        for name, learners in ensembles.items():
            truth, members = together(learners, family, recipe.episodes, 0, name)
            mean = np.mean((members.mean(axis=0) - truth) ** 2, axis=(1, 2, 3))
            scores = {
                "nll": mixture_nll(truth, members, sigmas[name]),
                "calibration error": calibration_error(truth, members, sigmas[name]),
                "loss": mean,
            }
            conclusion.add(f"ensemble of {recipe.draws}: {name}{label}", scores, "distribution", tuple(scores))
        conclusion.compare(*(f"ensemble of {recipe.draws}: {name}{label}" for name in ensembles))
    conclusion.notes.append(
        "Ensembles are even mixtures of normals around what their members say; the one width of each was chosen on "
        "validation distributions: " + ", ".join(f"{name} {sigma:.2f}" for name, sigma in sigmas.items()) + "."
    )
