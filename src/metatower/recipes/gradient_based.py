"""Recipes of the learners that adapt by gradient steps: MAML, first order too, Meta-SGD, Reptile."""

from dataclasses import dataclass
from typing import ClassVar

from metatower.core import Descend, Gradient, Learner, Rule, State, Tasks, Unrolled, lift
from metatower.gradients import FirstOrder, Reptile
from metatower.learners.maml import maml
from metatower.learners.meta_sgd import meta_sgd
from metatower.nets import Minibatch, Supervised, cross_entropy
from metatower.nets.norm import Mode
from metatower.recipes.few_shot import CLIP, FewShot
from metatower.rules import adam, anneal, clip, remembering, sgd


@dataclass(frozen=True)
class GradientBased(FewShot):
    """A network whose weights move on each task."""

    steps: int = 10_000
    stride: int = 2
    batch: int = 32
    train_queries: int = 3
    inner_steps: int = 1
    """Gradient steps on a task, in training."""
    test_steps: int = 3
    """Gradient steps on a task when judged."""
    inner_rate: float = 2.0
    """Where the step size on a task starts, in units of the mean cross-entropy; the 0.4 of the paper's code, whose
    loss is summed over the five classes, is 2.0 here."""

    def check(self) -> None:
        super().check()
        self.at_least_one("inner_steps", "test_steps")
        self.above_zero("inner_rate")

    @property
    def judged_norm(self) -> Mode:
        return "transductive"

    @property
    def gradient(self) -> Gradient:
        """How the gradient crosses a task's run."""
        return Unrolled()

    def adapting(self, steps: int) -> Descend:
        """The learner of tasks, with fresh weights."""
        return maml(self.objective(), self.inner_rate, steps)

    def objective(self) -> Supervised:
        """The network and its loss."""
        return Supervised(self.net(max(self.ways, self.train_ways)), cross_entropy)

    def outer(self) -> Rule:
        """How the initial weights move."""
        return clip(adam(self.rate), CLIP)

    def learner(self) -> Descend:
        rule = anneal(self.outer(), begin=self.steps // 2, end=max(1, self.steps))
        # one task at a time on each core: its working set stays in the cache
        return lift(self.adapting(self.inner_steps), rule, batch=self.batch, gradient=self.gradient, chunk=1)

    def artefact(self, learner: Descend, state: State) -> Learner:
        trained = learner.result(state).learner
        return Descend(trained.objective, trained.rule, self.test_steps)

    def about_training(self) -> str:
        return (
            f"Trained on {self.train_ways} ways, {self.shots} shot(s), {self.train_queries} queries, {self.batch} "
            f"tasks per step, {self.steps:,} steps of Adam from {self.rate:g}; {self.inner_steps} inner step(s) in "
            f"training, {self.test_steps} when judged, from a rate of {self.inner_rate:g} (mean cross-entropy)."
        )


@dataclass(frozen=True)
class MAML(GradientBased):
    """MAML, second order: initial weights from which a gradient step or a few learn a task.

    Finn, Abbeel & Levine 2017. Four strided convolutions with norms of the batch at hand, in training and when judged,
    as in the paper: predictions lean on the other queries of a task.
    """

    name: ClassVar[str] = "maml"


@dataclass(frozen=True)
class FirstOrderMAML(GradientBased):
    """FOMAML: MAML that takes the derivative of the inner gradients as zero.

    Finn, Abbeel & Levine 2017, section 5.2. Network, norms and protocol as in the recipe `maml`.
    """

    name: ClassVar[str] = "fomaml"

    @property
    def gradient(self) -> Gradient:
        return FirstOrder()


@dataclass(frozen=True)
class MetaSGD(GradientBased):
    """Meta-SGD: MAML that also learns a step size for every single weight.

    Li, Zhou, Chen & Li 2017. Network, norms and protocol as in the recipe `maml`; one step on a task.
    """

    name: ClassVar[str] = "meta-sgd"
    test_steps: int = 1

    def adapting(self, steps: int) -> Descend:
        return meta_sgd(self.objective(), self.inner_rate, steps)


@dataclass(frozen=True)
class ReptileRecipe(GradientBased):
    """Reptile: initial weights moved towards where a few steps on each task lead; no derivative crosses them.

    Nichol, Achiam & Schulman 2018, their protocol for Omniglot: inner steps of Adam without momentum, each on a
    mini-batch of a task of ten pictures per class; outer rate from 1 to 0. Adam's memory is carried from task to task,
    and to those on which it is judged. Norms as in the recipe `maml`.
    """

    name: ClassVar[str] = "reptile"
    steps: int = 20_000
    batch: int = 5
    rate: float = 1.0
    train_shots: int = 10
    """Pictures of each class in a task of training."""
    train_queries: int = 1
    inner_batch: int = 10
    """Pictures per gradient step, in training."""
    test_batch: int = 5
    """Pictures per gradient step when judged."""
    inner_steps: int = 5
    test_steps: int = 50
    inner_rate: float = 1e-3

    def check(self) -> None:
        super().check()
        self.at_least_one("train_shots", "inner_batch", "test_batch")

    @property
    def gradient(self) -> Gradient:
        return Reptile()

    def outer(self) -> Rule:
        return sgd(self.rate)

    def adapting(self, steps: int) -> Descend:
        objective = Minibatch(self.objective(), self.inner_batch)
        return Descend(objective, remembering(objective, adam(self.inner_rate, b1=0.0)), steps)

    def artefact(self, learner: Descend, state: State) -> Learner:
        trained = learner.result(state).learner
        return Descend(Minibatch(trained.objective.objective, self.test_batch), trained.rule, self.test_steps)

    def data(self) -> Tasks:
        return self.tasks("train", self.train_ways, self.train_queries, self.train_shots)

    def about_training(self) -> str:
        return (
            f"Trained on {self.train_ways} ways, {self.train_shots} shots, {self.batch} tasks per step, {self.steps:,} "
            f"steps of an outer rate from {self.rate:g} to 0; {self.inner_steps} inner steps of Adam (b1 = 0, rate "
            f"{self.inner_rate:g}) on {self.inner_batch} pictures each, when judged {self.test_steps} on "
            f"{self.test_batch}. Adam's memory is moved by the outer rate, as the weights are; the authors' code "
            "carries it from task to task."
        )
