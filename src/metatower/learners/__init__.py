"""Published algorithms, one short file each: what they are in terms of the recursion.

`maml`, `maml_plus_plus`, `anil` and `meta_sgd` differ in how a task is learned, and return the learner (storey 0), to
be lifted.
`fomaml` and `reptile` differ in how the gradient crosses that storey, and return its trainer (storey 1).
`ImplicitMAML` and `LEO` are learners of their own kind, as are those that take no gradient step on a task but fit a
head to the features of a network (`learners.features`): Prototypical and Matching Networks, R2-D2, plain baselines.
`RecurrentAdaptation` learns a task by a learned rule, `Lifetime` a distribution by a recurrent memory (storey 1,
without a gradient), `Guided` a distribution under a policy, and `SelfReferential` a task by a weight matrix that
rewrites itself.
`MetaGAN` reads a distribution and generates the learner of its tasks; `MetaGANTrainer` (storey 2) trains it against a
discriminator, and `MetaGANFewShot` a classifier of pictures against a generator of fakes.
Learners that act in worlds (`learners.acting`) are `RL2`, trained by `PPO`, and the agents that it is compared with.
`Coached` is a training of such an agent under a coach. `maml_rl` learns a world by policy gradients;
`ProMP` trains it by proximal steps where `lift` takes one step along the meta-gradient.
"""

from collections.abc import Callable

from metatower.core import Descend
from metatower.learners.anil import anil as anil
from metatower.learners.coached import Coached as Coached
from metatower.learners.fomaml import fomaml as fomaml
from metatower.learners.guided import Guided as Guided
from metatower.learners.imaml import ImplicitMAML as ImplicitMAML
from metatower.learners.leo import LEO as LEO
from metatower.learners.leo import leo as leo
from metatower.learners.lifetime import Lifetime as Lifetime
from metatower.learners.lifetime import RecurrentAdaptation as RecurrentAdaptation
from metatower.learners.lifetime import lifetime as lifetime
from metatower.learners.lifetime import recurrent_adaptation as recurrent_adaptation
from metatower.learners.logistic import LogisticRegression as LogisticRegression
from metatower.learners.maml import maml as maml
from metatower.learners.maml_plus_plus import maml_plus_plus as maml_plus_plus
from metatower.learners.maml_rl import PolicyReturn as PolicyReturn
from metatower.learners.maml_rl import Reflex as Reflex
from metatower.learners.maml_rl import maml_rl as maml_rl
from metatower.learners.matching import FullContext as FullContext
from metatower.learners.matching import MatchingNetwork as MatchingNetwork
from metatower.learners.meta_gan import MetaGAN as MetaGAN
from metatower.learners.meta_gan import meta_gan as meta_gan
from metatower.learners.meta_gan_few_shot import MetaGANFewShot as MetaGANFewShot
from metatower.learners.meta_gan_few_shot import meta_gan_few_shot as meta_gan_few_shot
from metatower.learners.meta_gan_trainer import MetaGANTrainer as MetaGANTrainer
from metatower.learners.meta_gan_trainer import meta_gan_trainer as meta_gan_trainer
from metatower.learners.meta_sgd import meta_sgd as meta_sgd
from metatower.learners.nearest import NearestNeighbour as NearestNeighbour
from metatower.learners.nearest_centroid import NearestCentroid as NearestCentroid
from metatower.learners.ppo import PPO as PPO
from metatower.learners.promp import ProMP as ProMP
from metatower.learners.prototypical import PrototypicalNetwork as PrototypicalNetwork
from metatower.learners.reptile import reptile as reptile
from metatower.learners.ridge import R2D2 as R2D2
from metatower.learners.rl2 import RL2 as RL2
from metatower.learners.rl2 import rl2 as rl2
from metatower.learners.self_referential import SelfReferential as SelfReferential
from metatower.learners.self_referential import self_referential as self_referential
from metatower.learners.steered import Steered as Steered

LEARNERS: dict[str, Callable[..., Descend]] = {
    "anil": anil,
    "fomaml": fomaml,
    "maml": maml,
    "maml_plus_plus": maml_plus_plus,
    "meta_sgd": meta_sgd,
    "reptile": reptile,
}
"""What is made of an objective, by name."""
