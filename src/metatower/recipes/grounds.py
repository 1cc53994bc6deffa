"""What ways to learn how to learn are compared on: one object gives a recipe its families of distributions."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import jax

from metatower.core import Objective, Selector, Tasks
from metatower.nets import MLP, cross_entropy
from metatower.recipes.hierarchical_functions import HierarchicalRL
from metatower.recipes.maml_baselines import MAMLBaselines
from metatower.recipes.on_functions import Criterion
from metatower.recipes.optimised_maml_functions import OptimisedMAMLFunctions
from metatower.recipes.optimised_maml_glyphs import OptimisedMAMLGlyphs
from metatower.recipes.own_family import DRAWN, SPLITS, OwnFamily, read
from metatower.tasks.binned import Binned

COMMON = (
    "shots", "queries", "hidden", "meta_steps", "meta_batch", "inner_steps", "inner_rate", "bias_rate", "outer_rate",
    "outer_clip", "outer_decay",
)  # fmt: skip
"""Options that are the same for all: tasks, network, the length of a run, the baselines' start."""
SHARED = (
    " Runs are judged on the pool of tasks that they learn from: where it has few tasks, give the query of a "
    "distribution another pool than its support."
)
"""Said of families where it is so."""
FEW = " Only {} different ones among {} drawn for training: intervals count each as often as it recurs."
"""Said of families with few distributions."""
TUNED = ("distributions", "judged", "weight_rate", "rate_rate", "decay_rate", "run_clip", "relative", "learn")
"""Options of meta-optimisation that were tuned for the recipe of each ground, and are taken from there."""


@dataclass(frozen=True)
class Ground:
    """Families of distributions, and what fits them: the network, the loss, and each family's settings."""

    name: str
    words: str
    """What a distribution is, and which ones are held out, to a newcomer."""
    splits: Mapping[str, Tasks]
    """For "train", "validation" and "test" a family, whose tasks are pairs of distributions."""
    objective: Callable[[int], Objective]
    """The network and its loss, from a seed."""
    criterion: Criterion
    numbers: tuple[int, int]
    """In an input, and in a target (for labels: how many there are)."""
    metric: str
    """What is compared, and what baselines are tuned by: "loss" or "accuracy"."""
    judged: Mapping[str, str]
    """Splits to be judged on, by what they are called."""
    common: Mapping[str, Any]
    """Values of `COMMON`."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What else the recipe of a family is given, by the family's name."""
    slower: Mapping[str, float] = field(default_factory=dict)
    """Time per floating-point operation against pooled MAML, where it is not `Family.slower`."""
    start_share: float = 0.2
    """Of the compute of a family, what its start, pooled MAML, takes of it where it has one."""
    adapted: Selector | None = None
    """Which leaves of the objective move on a task; all if None. A meta-GAN moves all in any case."""
    features: Callable[[int], Any] | None = None
    """A network from a seed, for classifiers by features; None where tasks have no labels."""
    given: bool = False
    """Whether the network is of somebody's own, which families that make their own cannot take."""
    rebuilds: bool = False
    """Whether recipes make the same by themselves, so that a model can be loaded like that of a run."""
    digest: str | None = None
    """Checksum of what it is made from, the pictures or a file, if there is such a thing."""


def functions(recipe: OptimisedMAMLFunctions | None = None) -> Ground:
    """The function zoo, with the settings of `optimised-maml-functions`."""
    recipe = recipe or OptimisedMAMLFunctions()
    return Ground(
        "functions",
        f"A distribution is a kind of function ({', '.join(recipe.kinds)}) with an amplitude, a frequency, an offset, "
        "a shift and a noise of its own; its tasks differ in phase. Held-out kinds: "
        f"{', '.join(recipe.held_out_kinds)}.",
        {split: recipe.family(split) for split in SPLITS},
        recipe.objective,
        recipe.criterion,
        recipe.numbers(),
        recipe.metric,
        {"fresh distributions": "train", "held-out kinds": "test"},
        common_of(recipe),
        rebuilds=True,
    )


def glyphs(recipe: OptimisedMAMLGlyphs | None = None) -> Ground:
    """Pictures of letters, with the settings of the main job, `optimised-maml`."""
    recipe = recipe or OptimisedMAMLGlyphs()
    sizes = (recipe.size**2, *recipe.hidden)
    return Ground(
        "glyphs",
        "A distribution is one script and what tells five classes apart: the letter, or its angle, size, shade or "
        "place. One picture per class cannot tell which it is. Held out are scripts, and ranges of these attributes.",
        {split: recipe.family(split) for split in SPLITS},
        recipe.objective,
        cross_entropy,
        (recipe.size**2, 5),
        recipe.metric,
        {"held-out scripts and ranges": "test"},
        common_of(recipe),
        {
            "meta-optimisation": {name: getattr(recipe, name) for name in TUNED},
            "meta-optimised-prototypes": {"judged": recipe.judged},
            # with every elite go the pictures that it was read from
            "meta-gan": {"elites": 64, "context": 8},
        },
        # as in the main job
        start_share=0.5,
        adapted=recipe.adapted,
        features=lambda seed: MLP(sizes, key=jax.random.key(seed)),
        digest=recipe.fingerprint(),
    )


def of_file(own: OwnFamily) -> Ground:
    """The family of somebody's own file, with the settings of functions."""
    common = common_of(OptimisedMAMLFunctions())
    learned_from = own.splits["train"].sample(jax.random.key(0)).support
    sources = {"bins": learned_from.bins, "thumbs": HierarchicalRL.thumbs} if isinstance(learned_from, Binned) else {}
    return Ground(
        own.path.stem,
        f"The families of {own.path.name}: fresh distributions of its training split, and its test split."
        + (FEW.format(own.different, DRAWN) if own.different < DRAWN else "")
        + (SHARED if own.one_pool else ""),
        own.splits,
        lambda seed: own.objective(seed, common["hidden"]),
        own.criterion,
        (own.inputs, own.outputs),
        own.metric,
        {"fresh distributions": "train", "held-out kinds": "test"},
        common,
        {"hierarchical": sources},
        features=_features(own, common["hidden"]) if own.ways else None,
        given=own.build is not None,
        digest=hashlib.sha256(own.path.read_bytes()).hexdigest(),
    )


GROUNDS: dict[str, Callable[[], Ground]] = {"functions": functions, "glyphs": glyphs}
"""By what `--families` takes; it takes Python files, too."""


def ground(families: str) -> Ground:
    """The ground of this name, or of this Python file.

    Raises:
        UserError: there is none, or the file cannot be used.
    """
    if families in GROUNDS:
        return GROUNDS[families]()
    return of_file(read(Path(families)))


def common_of(recipe: Any) -> dict[str, Any]:
    """What all are given of a recipe's options."""
    return {name: getattr(recipe, name) for name in COMMON}


def recipe_on(where: Ground, kind: type[MAMLBaselines], wide: int = 24, **options: Any) -> Any:
    """The recipe of this kind on a ground, with those of the common and of these options that it has.

    Args:
        wide: distributions that are worked on at the same time: other numbers are other programs to compile.
    """
    own = {"ground": where, "chunk": wide, "__doc__": kind.__doc__, "__module__": kind.__module__}
    kind = type(kind.__name__, (_OnGround, kind), own)
    known = {each.name for each in dataclasses.fields(kind)}
    given = {**where.common, **options}
    return kind(**{name: each for name, each in given.items() if name in known})


class _OnGround:
    """What a recipe on functions takes from a ground."""

    ground: ClassVar[Ground]

    def family(self, split: str) -> Tasks:
        return self.ground.splits[split]

    def objective(self, seed: int) -> Objective:
        return self.ground.objective(seed)

    @property
    def criterion(self) -> Criterion:
        return self.ground.criterion

    @property
    def metric(self) -> str:
        return self.ground.metric

    @property
    def adapted(self) -> Selector | None:
        return self.ground.adapted

    def numbers(self) -> tuple[int, int]:
        return self.ground.numbers

    def features(self, seed: int) -> Any:
        assert self.ground.features is not None, "families by features take part where tasks have labels only"
        return self.ground.features(seed)

    def judged_on(self) -> dict[str, Tasks]:
        return {f" ({name})": self.ground.splits[split] for name, split in self.ground.judged.items()}


def _features(own: OwnFamily, hidden: tuple[int, ...]) -> Callable[[int], Any] | None:
    """The network of a file as features: its own, or an MLP up to the last hidden layer."""
    if own.build is None:
        sizes = (own.inputs, *(own.hidden or hidden))
        return lambda seed: MLP(sizes, key=jax.random.key(seed))

    def net(seed: int) -> Any:
        objective: Any = own.objective(seed, hidden)
        return objective.net

    return net if hasattr(own.build(0), "net") else None
