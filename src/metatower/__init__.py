"""Learning to learn, and learning how to learn to learn.

Two nouns, `Objective` and `Learner`; two arrows, `Descend` and `Expected`; one verb, `lift`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metatower.core import Constant as Constant
    from metatower.core import Descend as Descend
    from metatower.core import Expected as Expected
    from metatower.core import Gradient as Gradient
    from metatower.core import Learner as Learner
    from metatower.core import Objective as Objective
    from metatower.core import Positive as Positive
    from metatower.core import Rule as Rule
    from metatower.core import Task as Task
    from metatower.core import Tasks as Tasks
    from metatower.core import describe as describe
    from metatower.core import lift as lift
    from metatower.core import value as value
    from metatower.core.plan import plan as plan
    from metatower.recipes.run import load as load
    from metatower.rules import adam as adam
    from metatower.rules import anneal as anneal
    from metatower.rules import clip as clip
    from metatower.rules import from_optax as from_optax
    from metatower.rules import momentum as momentum
    from metatower.rules import per_step as per_step
    from metatower.rules import rates_for as rates_for
    from metatower.rules import sgd as sgd

__version__ = "0.1.0"

_WHERE = {
    "metatower.core": (
        "Constant Descend Expected Gradient Learner Objective Positive Rule Task Tasks describe lift value"
    ),
    "metatower.core.plan": "plan",
    "metatower.recipes.run": "load",
    "metatower.rules": "adam anneal clip from_optax momentum per_step rates_for sgd",
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names.split()}
__all__ = sorted(_MODULE)


def __getattr__(name: str) -> Any:
    """Imports what is asked for: `metatower --help` need not wait for JAX."""
    if name not in _MODULE:
        raise AttributeError(f"module 'metatower' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE])
