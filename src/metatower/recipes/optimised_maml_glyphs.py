"""The main job: the loop on families of pictures of letters."""

from dataclasses import dataclass
from typing import ClassVar

from metatower.core import Descend, Tasks
from metatower.evaluation.conclusion import Images
from metatower.recipes.on_glyphs import OnGlyphs
from metatower.recipes.optimised_maml import OptimisedMAML


@dataclass(frozen=True)
class OptimisedMAMLGlyphs(OnGlyphs, OptimisedMAML):
    """A meta-meta-learner improves MAML on real pictures of letters. The main job.

    In one distribution the five classes of a task are five letters; in another five angles, whatever the letters; in
    a third five sizes, places or shades. One picture per class cannot tell which it is, but a few meta-steps on the
    distribution can. Storey 2 trains MAML's initial weights, its inner rate per layer and step and its outer rate
    per leaf and meta-step, by what they do to fresh runs of MAML. It is judged on distributions of scripts that no
    training run has seen, in which at least one of angle, size, place, shade … varies around a centre outside the
    training range.
    """

    name: ClassVar[str] = "optimised-maml"
    may_be_zero: ClassVar[tuple[str, ...]] = ("outer_decay", "decay_rate", "nuisance", "run_clip")

    steps: int = 170
    meta_batch: int = 4
    distributions: int = 16
    outer_rate: float = 0.06
    weight_rate: float = 4e-4
    rate_rate: float = 4e-2
    run_clip: float = 1.0
    searched: int = 206
    pooled_steps: int = 15_000
    pooled_extra: int = 26_200

    def sample_of(self, maml: Descend, tasks: Tasks) -> Images:
        def answers(task, key):
            return maml.result(maml.adapt(task.support, key=key)).net(task.query.x)

        return self.figure_of(
            tasks, answers, "One task of a held-out distribution, and what the optimised MAML says of its queries."
        )
