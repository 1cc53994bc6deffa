"""Recipes of the learners that classify by features: Prototypical and Matching Networks, R2-D2."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from metatower.core import Descend, Learner, Positive, lift
from metatower.core.errors import UserError
from metatower.learners.matching import MatchingNetwork
from metatower.learners.prototypical import PrototypicalNetwork
from metatower.learners.ridge import R2D2
from metatower.nets.conv import ConvNet
from metatower.nets.norm import Mode
from metatower.recipes.few_shot import CLIP, FewShot
from metatower.rules import adam, anneal, clip


@dataclass(frozen=True)
class Embedding(FewShot):
    """A network whose features are compared; it is trained on tasks of many ways, and used on any number."""

    steps: int = 4000
    train_ways: int = 60
    batch: int = 1
    rate: float = 5e-3

    @abstractmethod
    def head(self, net: ConvNet) -> Learner:
        """The learner of tasks that the network becomes."""

    @property
    def judged_norm(self) -> Mode:
        return "running"

    def learner(self) -> Descend:
        rule = anneal(clip(adam(self.rate), CLIP), begin=self.steps // 2, end=max(1, self.steps))
        return lift(self.head(self.net(None)), rule, batch=self.batch)

    def about_training(self) -> str:
        halved = "max-pooling" if self.stride == 1 else f"strides of {self.stride}"
        return (
            f"Blocks that halve by {halved}. Trained on {self.train_ways} ways, {self.shots} shot(s), "
            f"{self.train_queries} queries, {self.batch} task(s) per step, {self.steps:,} steps of Adam "
            f"from {self.rate:g}; norms of support and query apart."
        )


@dataclass(frozen=True)
class Prototypical(Embedding):
    """Prototypical Networks: the class whose mean feature is nearest.

    Snell, Swersky & Zemel 2017. Four blocks of convolution, norm, ReLU and pooling, trained on tasks of many ways;
    squared Euclidean distance. Judged inductively: the norms use the statistics of training tasks.
    """

    name: ClassVar[str] = "prototypical"

    def head(self, net: ConvNet) -> Learner:
        return PrototypicalNetwork(net)


@dataclass(frozen=True)
class Matching(Embedding):
    """Matching Networks: the labels of the pictures most alike, by attention.

    Vinyals et al. 2016, cosine attention without full-context embeddings, at a learned temperature, trained on tasks
    of many ways. Judged inductively: the norms use the statistics of training tasks.
    """

    name: ClassVar[str] = "matching"

    def head(self, net: ConvNet) -> Learner:
        return MatchingNetwork(net, scale=Positive(10.0))


@dataclass(frozen=True)
class Ridge(Embedding):
    """R2-D2: ridge regression on the features, solved in closed form and differentiated through.

    Bertinetto et al. 2019, with the network of the other recipes and a learned penalty, trained on tasks of many ways
    and of the shots that it is judged on; in the paper of 1 to 9 shots, with wider features, of two blocks. Judged
    inductively: the norms use the statistics of training tasks.
    """

    name: ClassVar[str] = "r2d2"
    joined: bool = False
    """Features of the last two blocks, as in the paper, and not of the last alone; needs --stride 1."""

    def check(self) -> None:
        super().check()
        if self.joined and (self.stride == 2 or len(self.channels) < 2):
            raise UserError(f"{self.name}: --joined needs --stride 1 and at least two blocks (--channels).")

    def net(self, outputs: int | None, **options: Any) -> ConvNet:
        return super().net(outputs, joined=self.joined, **options)

    def about_training(self) -> str:
        return super().about_training() + " Features of the last two blocks, joined." * self.joined

    def head(self, net: ConvNet) -> Learner:
        return R2D2(net)
