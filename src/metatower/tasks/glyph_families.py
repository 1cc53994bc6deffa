"""Families of distributions of pictures of letters: what counts as the class belongs to the distribution.

In one distribution the five classes of a task are five letters; in another five angles, whatever the letters; in a
third five shades of ink. Everything that is not the class varies at random. A task's support set is too small to
tell which it is; a few steps of meta-training on the distribution do tell.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from metatower.core import Task, Tasks
from metatower.core.errors import UserError
from metatower.tasks.attributes import ATTRIBUTES, NAMES, NOISE_LENGTH, noise_table, ranges, render, softened
from metatower.tasks.chance import integer, ranks, shuffled, uniforms
from metatower.tasks.episodes import labelled
from metatower.tasks.glyphs import SPLITS, glyphs

CHARACTER = "character"
CLASSES = (CHARACTER, *NAMES)
"""What a distribution may make the class."""


class Layout(eqx.Module):
    """What all tasks of a family have in common: numbers of things, none of them learned."""

    ways: int = eqx.field(static=True)
    """Classes per task."""
    shots: int = eqx.field(static=True)
    """Support examples per class."""
    queries: int = eqx.field(static=True)
    """Query examples per class."""
    size: int = eqx.field(static=True)
    """Pixels along a side."""


class GlyphTasks(Tasks):
    """One distribution of picture tasks. Its leaves say what the class is and how all else varies.

    Classes of numeric attributes are as many equal steps between `class_low` and `class_high`; which label
    stands for which step is drawn anew in every task, or is the same in all where labels are `graded`. Examples of a
    task are ordered by label.
    """

    images: UInt8[Array, "classes drawings h w"]
    count: Int[Array, " classes"]
    noise: Float[Array, " length"]
    letters: Int[Array, " letter"]
    """The letters of this pool; only the first `letter_count` count."""
    letter_count: Int[Array, ""]
    is_class: Bool[Array, " attribute"]
    """Which attributes tell the class; none if the letter does."""
    variety: Int[Array, ""]
    """How many letters a task has, where the letter is not the class."""
    low: Float[Array, " attribute"]
    high: Float[Array, " attribute"]
    class_low: Float[Array, " attribute"]
    class_high: Float[Array, " attribute"]
    jitter: Float[Array, ""]
    """Most that a value strays from its class's step; two steps are 1 apart."""
    graded: Bool[Array, ""]
    """Whether a label stands for the same step in every task."""
    order: Float[Array, "attribute ways"]
    """Numbers whose ranks are the steps of the labels, where these are graded."""
    inverted: Bool[Array, ""]
    layout: Layout

    def sample(self, key: PRNGKeyArray) -> Task:
        ways, shots, size = self.layout.ways, self.layout.shots, self.layout.size
        each = shots + self.layout.queries
        attributes, most = len(NAMES), self.images.shape[1]
        pick, any_letter, different, any_drawing, step, chance, noise_from = uniforms(
            key,
            self.letters.shape,
            (ways, each),
            (ways, most),
            (ways, each),
            (attributes, ways),
            (ways, each, attributes),
            (ways * each,),
        )
        letters = self.letters[shuffled(pick, self.letter_count, ways)]
        by_letter = ~jnp.any(self.is_class)
        letter = letters[jnp.where(by_letter, jnp.arange(ways)[:, None], integer(any_letter, self.variety))]
        # pictures of a class that is a letter are of different drawings
        drawing = integer(any_drawing, self.count[letter])
        if each <= most:
            drawing = jnp.where(by_letter, shuffled(different, self.count[letters], each), drawing)

        step = jnp.where(self.graded, self.order, step)
        place = (ranks(step).T[:, None, :] + 0.5 + self.jitter * (2 * chance - 1)) / ways
        class_value = self.class_low + (self.class_high - self.class_low) * place
        value = jnp.where(self.is_class, class_value, self.low + (self.high - self.low) * chance)

        pictures = render(
            self.images,
            self.noise,
            (letter * most + drawing).reshape(-1),
            value.reshape(-1, attributes),
            integer(noise_from, NOISE_LENGTH - size * size),
            self.inverted,
            size,
        ).reshape(ways, each, size, size)
        return labelled(pictures, shots)


class GlyphFamily(Tasks):
    """A family of distributions of picture tasks: a task of storey 2 is a pair of `GlyphTasks`.

    A member has a set of letters of one script, one attribute that is the class, a centre and a width for every
    other one. Support and query are the same distribution on two halves of the letters, which share none.
    Members hold the whole pool of drawings: sample a member and use it inside one `vmap`, where the pool is shared;
    members that *leave* a `vmap` have a copy each.

    Args:
        images: drawings, uint8 `[classes, drawings, h, w]`, ink is 255.
        count: how many drawings each class has, `[classes]`.
        group: script or alphabet of each class, `[classes]`.
        classes: what may be the class, from `CLASSES`; two joined by `+` tell it together.
        split: "train", "validation" or "test": whose centres of the attributes (`ATTRIBUTES`).
        held_out: how likely an attribute's centre is one held out for that split; at least one always is.
        nuisance: 0 for no variation of what is not the class, 1 for the width in `ATTRIBUTES`, or more.
        letters: most letters a member has in both pools together.
        drawings: most drawings of a letter that are used.
        jitter: most that a value strays from its class's step; two steps are 1 apart.
        graded: how likely a member is one whose labels stand for the same steps in all its tasks.
        ways, shots, queries, size: see `Layout`.

    Raises:
        UserError: too few letters or drawings for these, or an unknown class.
    """

    images: UInt8[Array, "classes drawings h w"]
    count: Int[Array, " classes"]
    noise: Float[Array, " length"]
    group_start: Int[Array, " group"]
    group_count: Int[Array, " group"]
    choices: Bool[Array, "choice attribute"]
    usual: Float[Array, "attribute 2"]
    unusual: Float[Array, "attribute 2"]
    reach: Float[Array, " attribute"]
    width: Float[Array, " attribute"]
    held_out: Float[Array, ""]
    jitter: Float[Array, ""]
    graded: Float[Array, ""]
    letters: int = eqx.field(static=True)
    classes: tuple[str, ...] = eqx.field(static=True)
    layout: Layout

    def __init__(
        self,
        images: np.ndarray,
        count: np.ndarray,
        group: np.ndarray,
        classes: Sequence[str] = CLASSES,
        split: str = "train",
        held_out: float = 0.5,
        nuisance: float = 1.0,
        letters: int = 40,
        drawings: int = 8,
        jitter: float = 0.2,
        graded: float = 0.0,
        ways: int = 5,
        shots: int = 1,
        queries: int = 3,
        size: int = 14,
    ):
        layout = Layout(ways, shots, queries, size)
        check_split(split)
        if layout.shots < 1 or layout.queries < 1 or layout.ways < 2 or layout.size < 4:
            raise UserError(
                f"Expected at least 2 ways, 1 shot, 1 query per class and 4 pixels a side; got {ways} ways, "
                f"{shots} shots, {queries} queries and {size} pixels."
            )
        self.choices = jnp.asarray([_attributes_of(name) for name in classes]).reshape(-1, len(NAMES))
        if not len(self.choices):
            raise UserError(f"Expected at least one class of {', '.join(CLASSES)}; got none.")
        each = layout.shots + layout.queries
        if CHARACTER in classes and each > drawings:
            raise UserError(
                f"{layout.shots} shots and {layout.queries} queries of a letter need {each} drawings of it, "
                f"and at most {drawings} are used. Ask for fewer shots or queries."
            )
        least = each if CHARACTER in classes else 1
        wanted = [g for g in np.unique(group) if np.sum((group == g) & (count >= least)) >= 2 * layout.ways]
        if not wanted:
            raise UserError(
                f"{layout.ways} ways need a script with {2 * layout.ways} letters of at least {least} drawings "
                f"({layout.ways} to learn from, {layout.ways} others to be judged on), and there is none. "
                "Ask for fewer ways, shots or queries."
            )
        # letters of a script lie together, in an order that is random but always the same
        shuffled = np.random.default_rng(0).permutation(len(count))
        rows = [[i for i in shuffled if group[i] == g and count[i] >= least] for g in wanted]
        order = np.concatenate(rows)
        # of many drawings, some of each family of fonts
        spread = [np.linspace(0, count[i] - 1, min(drawings, count[i])).round().astype(int) for i in order]
        pool = np.zeros((len(order), max(map(len, spread)), *images.shape[2:]), np.uint8)
        for row, (i, chosen) in enumerate(zip(order, spread, strict=True)):
            pool[row, : len(chosen)] = images[i, chosen]
        self.images = jnp.asarray(softened(pool, layout.size))
        self.count = jnp.asarray([len(chosen) for chosen in spread], jnp.int32)
        self.noise = jnp.asarray(noise_table())
        sizes = np.array([len(row) for row in rows])
        self.group_count = jnp.asarray(sizes, jnp.int32)
        self.group_start = jnp.asarray(np.cumsum(sizes) - sizes, jnp.int32)
        usual, unusual = ranges(split)
        self.usual, self.unusual = jnp.asarray(usual), jnp.asarray(unusual)
        self.reach = jnp.asarray([a.reach for a in ATTRIBUTES.values()], jnp.float32)
        self.width = nuisance * jnp.asarray([a.nuisance for a in ATTRIBUTES.values()], jnp.float32)
        self.held_out = jnp.asarray(0.0 if split == "train" else held_out, jnp.float32)
        self.jitter = jnp.asarray(jitter, jnp.float32)
        self.graded = jnp.asarray(graded, jnp.float32)
        self.letters = max(int(letters), 2 * layout.ways)
        self.classes, self.layout = tuple(classes), layout

    def sample(self, key: PRNGKeyArray) -> Task:
        attributes = len(NAMES)
        steps = (attributes, self.layout.ways)
        one, held, centre, width, order = uniforms(key, (7,), (attributes,), (attributes,), (attributes,), steps)
        is_class = self.choices[integer(one[0], len(self.choices))]

        # a window on the letters of a script, in a circle; its halves are the two pools
        group = integer(one[1], len(self.group_count))
        available = self.group_count[group]
        window = self.group_start[group] + (integer(one[2], available) + jnp.arange(self.letters)) % available
        used = jnp.minimum(self.letters, available)
        half = (self.letters + 1) // 2

        forced = integer(one[3], attributes) == jnp.arange(attributes)
        held = ((held < self.held_out) | forced) & (self.held_out > 0)
        bounds = jnp.where(held[:, None], self.unusual, self.usual)
        centre = bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) * centre
        width = self.width * (0.5 + 0.5 * width)

        def pool(number):
            start = number * ((used + 1) // 2)
            count = jnp.where(number == 0, (used + 1) // 2, used // 2)
            return GlyphTasks(
                images=self.images,
                count=self.count,
                noise=self.noise,
                letters=window[jnp.minimum(start + jnp.arange(half), self.letters - 1)],
                letter_count=count,
                is_class=is_class,
                variety=1 + integer(one[4], self.layout.ways),
                low=centre - width,
                high=centre + width,
                class_low=centre - self.reach,
                class_high=centre + self.reach,
                jitter=self.jitter,
                graded=one[6] < self.graded,
                order=order,
                inverted=one[5] < 0.5,
                layout=self.layout,
            )

        return Task(pool(0), pool(1))


def glyph_family(
    split: str = "train",
    *,
    fonts: Path | str | None = None,
    **options: Any,
) -> GlyphFamily:
    """Glyph families of the scripts of a split, in which any attribute may be the class.

    Args:
        split: "train", "validation" or "test": they share no script, and no centre of the attributes held out.
        fonts: a folder of further fonts.
        options: as in `GlyphFamily`: classes, nuisance, ways, shots, queries, size and so on.
    """
    check_split(split)
    letters = glyphs(fonts).select(SPLITS[split])
    return GlyphFamily(letters.images, letters.count, letters.script, split=split, **options)


def script_family(split: str = "train", **options: Any) -> GlyphFamily:
    """Scripts times transforms: the class is always the letter, and a member's transform is fixed."""
    settings: dict[str, Any] = {"classes": (CHARACTER,), "nuisance": 0.0, **options}
    return glyph_family(split, **settings)


def check_split(split: str) -> None:
    """Raises UserError unless `split` is the name of one."""
    if split not in SPLITS:
        raise UserError(f"Expected a split of {', '.join(SPLITS)}; got {split!r}.")


def _attributes_of(name: str) -> list[bool]:
    parts = name.split("+")
    unknown = sorted(set(parts) - set(CLASSES))
    if unknown or (CHARACTER in parts and len(parts) > 1):
        raise UserError(f"Expected classes from {', '.join(CLASSES)}, or two but the first joined by +; got {name!r}.")
    return [attribute in parts for attribute in NAMES]
