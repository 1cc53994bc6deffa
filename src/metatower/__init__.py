"""Learning to learn, and learning how to learn to learn.

Two nouns, `Objective` and `Learner`; two arrows, `Descend` and `Expected`; one verb, `lift`.
"""

from metatower.core import Constant as Constant
from metatower.core import Descend as Descend
from metatower.core import Expected as Expected
from metatower.core import Learner as Learner
from metatower.core import Objective as Objective
from metatower.core import Positive as Positive
from metatower.core import Task as Task
from metatower.core import Tasks as Tasks
from metatower.core import describe as describe
from metatower.core import lift as lift
from metatower.core import value as value
from metatower.core.plan import plan as plan
from metatower.rules import adam as adam
from metatower.rules import clip as clip
from metatower.rules import from_optax as from_optax
from metatower.rules import momentum as momentum
from metatower.rules import per_step as per_step
from metatower.rules import rates_for as rates_for
from metatower.rules import sgd as sgd

__version__ = "0.1.0"


def load(path):
    """The trained learner of a run's folder, or of a copy of its `model` folder; see `metatower.recipes.run.load`."""
    from metatower.recipes.run import load  # here, so that `import metatower` stays light

    return load(path)
