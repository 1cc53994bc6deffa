"""Named, complete, typed configurations: what the command line runs."""

import difflib

from metatower.core.errors import UserError
from metatower.recipes.base import Recipe as Recipe
from metatower.recipes.embeddings import Matching, Prototypical, Ridge
from metatower.recipes.gradient_based import MAML, FirstOrderMAML, MetaSGD, ReptileRecipe
from metatower.recipes.hierarchical_agents import HierarchicalAgents
from metatower.recipes.hierarchical_functions import HierarchicalRL
from metatower.recipes.hierarchical_glyphs import HierarchicalGlyphs
from metatower.recipes.learned_optimiser import LearnedOptimiser
from metatower.recipes.learned_outer_rule import LearnedOuterRule
from metatower.recipes.maml_glyphs import MAMLGlyphs
from metatower.recipes.maml_navigation import MAMLNavigation
from metatower.recipes.maml_sinusoid import MAMLSinusoid
from metatower.recipes.meta_gan import MetaGANFunctions
from metatower.recipes.meta_gan_glyphs import MetaGANGlyphs
from metatower.recipes.optimised_maml_functions import OptimisedMAMLFunctions
from metatower.recipes.optimised_maml_glyphs import OptimisedMAMLGlyphs
from metatower.recipes.optimised_prototypical import OptimisedPrototypicalGlyphs
from metatower.recipes.recurrent_memory import RecurrentMemory
from metatower.recipes.rl2_arm import RL2Arm
from metatower.recipes.rl2_bandits import RL2Bandits
from metatower.recipes.rl2_worlds import RL2GridNavi, RL2MDPs

DEFAULT = "optimised-maml"
"""What `metatower train` runs when no recipe is named."""

RECIPES: dict[str, type[Recipe]] = {
    "optimised-maml": OptimisedMAMLGlyphs,
    "optimised-maml-functions": OptimisedMAMLFunctions,
    "optimised-prototypical": OptimisedPrototypicalGlyphs,
    "recurrent-memory": RecurrentMemory,
    "learned-optimiser": LearnedOptimiser,
    "learned-outer-rule": LearnedOuterRule,
    "hierarchical-rl": HierarchicalRL,
    "hierarchical-rl-glyphs": HierarchicalGlyphs,
    "hierarchical-rl-agents": HierarchicalAgents,
    "meta-gan": MetaGANFunctions,
    "meta-gan-glyphs": MetaGANGlyphs,
    "maml-glyphs": MAMLGlyphs,
    "maml-sinusoid": MAMLSinusoid,
    "prototypical": Prototypical,
    "matching": Matching,
    "r2d2": Ridge,
    "maml": MAML,
    "fomaml": FirstOrderMAML,
    "meta-sgd": MetaSGD,
    "reptile": ReptileRecipe,
    "rl2-bandits": RL2Bandits,
    "rl2-mdps": RL2MDPs,
    "rl2-arm": RL2Arm,
    "rl2-gridnavi": RL2GridNavi,
    "maml-navigation": MAMLNavigation,
}
"""Every recipe by its name on the command line."""


def find(name: str) -> type[Recipe]:
    """The recipe of this name.

    Raises:
        UserError: there is none; the message names the nearest.
    """
    if name in RECIPES:
        return RECIPES[name]
    near = [each for each in RECIPES if name and each.startswith(name)]  # `rl2` may mean any of its recipes
    near = near or difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.5)
    guess = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"There is no recipe {name!r}.{guess} `metatower list` shows them all: {', '.join(RECIPES)}.")
