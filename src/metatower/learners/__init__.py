"""Published algorithms, one short file each: what they are in terms of the recursion.

`maml`, `anil` and `meta_sgd` differ in how a task is learned, and return the learner (storey 0), to be lifted.
`fomaml` and `reptile` differ in how the gradient crosses that storey, and return its trainer (storey 1).
"""

from collections.abc import Callable

from metatower.core import Descend
from metatower.learners.anil import anil as anil
from metatower.learners.fomaml import fomaml as fomaml
from metatower.learners.maml import maml as maml
from metatower.learners.meta_sgd import meta_sgd as meta_sgd
from metatower.learners.nearest import NearestNeighbour as NearestNeighbour
from metatower.learners.reptile import reptile as reptile

LEARNERS: dict[str, Callable[..., Descend]] = {
    "anil": anil,
    "fomaml": fomaml,
    "maml": maml,
    "meta_sgd": meta_sgd,
    "reptile": reptile,
}
"""Every algorithm by name."""
