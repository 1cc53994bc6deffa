"""MetaGAN on letters of many scripts: a few-shot classifier with a class for fakes, beside the same without it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax

from metatower.core import Descend, Learner, State, lift
from metatower.core.keys import fork
from metatower.evaluation.conclusion import Conclusion
from metatower.evaluation.episodes import evaluate
from metatower.learners.meta_gan_few_shot import CLASSIFIER, GENERATOR, meta_gan_few_shot
from metatower.learners.nearest import NearestNeighbour
from metatower.nets import MLP, Supervised, cross_entropy
from metatower.recipes.maml_glyphs import MAMLGlyphs
from metatower.rules import adam, clip, per_step, rates_for, sgd
from metatower.training.loop import train
from metatower.training.progress import Progress

CLIP = 10.0


@dataclass(frozen=True)
class MetaGANGlyphs(MAMLGlyphs):
    """MetaGAN teaches MAML to tell five letters apart from one picture of each, and all of them from fakes.

    Zhang et al. 2018: the classifier has a sixth class, for pictures that a generator makes up from those of the task.
    Judged on scripts that training has not seen, beside the same classifier trained without fakes for as many steps.
    """

    name: ClassVar[str] = "meta-gan-glyphs"

    steps: int = 2000
    fakes: float = 0.1
    """How much the fakes count in the classifier's loss."""
    generator_rate: float = 1e-3
    """Adam's step size for the generator."""

    def check(self) -> None:
        super().check()
        self.above_zero("generator_rate")

    def learner(self) -> Any:
        key_net, key_make = fork(jax.random.key(self.seed), 2)
        net = MLP((self.size**2, *self.hidden, self.ways + 1), key=key_net)
        rates = rates_for(Supervised(net, cross_entropy), self.inner_rate, steps=self.inner_steps)
        return meta_gan_few_shot(
            net,
            clip(per_step(sgd(rates)), CLIP),
            self.size**2,
            {CLASSIFIER: clip(adam(self.rate), CLIP), GENERATOR: clip(adam(self.generator_rate), CLIP)},
            key=key_make,
            steps=self.inner_steps,
            weight=self.fakes,
            batch=self.batch,
            judged=self.batch,
        )

    def without_fakes(self) -> Descend:
        """The same classifier's trainer without the sixth class: MAML."""
        net = MLP((self.size**2, *self.hidden, self.ways), key=fork(jax.random.key(self.seed), 2)[0])
        objective = Supervised(net, cross_entropy)
        rates = rates_for(objective, self.inner_rate, steps=self.inner_steps)
        maml = Descend(objective, clip(per_step(sgd(rates)), CLIP), self.inner_steps)
        return lift(maml, clip(adam(self.rate), CLIP), batch=self.batch)

    def artefact(self, learner: Any, state: State) -> Learner:
        return learner.result(state)

    def conclude(self, artefact: Any, folder: Path, show: Progress) -> Conclusion:
        maml = self.without_fakes()
        state = train(
            maml,
            self.data(),
            steps=self.steps,
            seed=self.seed,
            folder=folder / "baselines" / "without-fakes",
            config=self.options(),
            title="without fakes",
            show=show,
        )
        contestants = {
            "MetaGAN": artefact,
            "the same without fakes (MAML)": maml.result(state).learner,
            "the same, untrained": self.learner().classifier,
            "nearest neighbour on pixels": NearestNeighbour(),
        }
        conclusion = Conclusion(
            notes=[
                f"{self.ways} ways, {self.shots} shot(s), {self.queries} queries per class, {self.size} x {self.size} "
                f"pixels; {self.batch} tasks per step, {self.steps:,} steps of Adam at {self.rate:g} (generator "
                f"{self.generator_rate:g}); {self.inner_steps} inner steps at learned rates. Seed {self.seed}.",
                "Both saw the same tasks in the same order. Scripts of training and test share no letter; nothing was "
                "chosen by looking at the test scripts. One training run each.",
            ]
        )
        for name, learner in contestants.items():
            scores = evaluate(
                learner, self.held_out(), episodes=self.episodes, seed=self.seed, show=show, title=f"judging: {name}"
            )
            conclusion.add(name, scores, "task")
        conclusion.compare("MetaGAN", *(name for name in contestants if name != "MetaGAN"))
        return conclusion
