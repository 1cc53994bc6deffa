"""N-way K-shot tasks from a pool of labelled pictures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from metatower.core import Task, Tasks
from metatower.core.errors import UserError
from metatower.nets.supervised import Examples
from metatower.tasks.chance import distinct, uniforms


def blank(ways: int, shots: int, queries: int, size: int) -> "Episodes":
    """Tasks of empty pictures, `size` pixels a side: they have the shapes of others, and need no data."""
    each = shots + queries
    return Episodes(np.zeros((ways, each, size, size), np.uint8), np.full(ways, each), ways, shots, queries)


class Episodes(Tasks):
    """N-way K-shot classification: each task has a few classes of many, under labels dealt anew.

    Examples are ordered by label. Support and query are different pictures of the same classes. Change `ways`, `shots`
    or `queries` with `dataclasses.replace`.

    Args:
        images: uint8 `[classes, drawings, h, w]`, or with colours last. Classes with fewer pictures are filled up
            with anything.
        count: how many pictures each class has, `[classes]`.
        ways: classes per task.
        shots: support pictures per class.
        queries: query pictures per class.
        rotations: each class counts as four, by quarter turns anticlockwise: class id = 4 * class + turns.

    Raises:
        UserError: more ways than classes, or a class with too few pictures.
    """

    images: UInt8[Array, "classes drawings h w *colour"] = eqx.field(converter=jnp.asarray)
    count: Int[Array, " classes"] = eqx.field(converter=jnp.asarray)
    ways: int = eqx.field(static=True, default=5)
    shots: int = eqx.field(static=True, default=1)
    queries: int = eqx.field(static=True, default=15)
    rotations: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.ways < 2 or self.shots < 1 or self.queries < 1:
            raise UserError(
                "Expected at least 2 ways, 1 shot and 1 query per class; "
                f"got {self.ways} ways, {self.shots} shots and {self.queries} queries."
            )
        if self.ways > self.classes:
            raise UserError(
                f"Expected at most {self.classes} ways, as there are {self.classes} classes; got {self.ways}. "
                "Ask for fewer ways, or bring more classes."
            )
        if self.rotations and self.images.shape[2] != self.images.shape[3]:
            raise UserError(f"Rotations need square pictures, got {self.images.shape[2]} x {self.images.shape[3]}.")
        if isinstance(self.count, jax.Array) and not isinstance(self.count, jax.core.Tracer):
            check_enough(np.asarray(self.count), self.shots, self.queries)

    @property
    def classes(self) -> int:
        """How many classes there are to choose from."""
        return len(self.count) * (4 if self.rotations else 1)

    def sample(self, key: PRNGKeyArray) -> Task:
        each = self.shots + self.queries
        pick, order = uniforms(key, (2, self.ways), (self.ways, 2, each))
        chosen = distinct(pick, self.classes)
        chosen, turns = (chosen // 4, chosen % 4) if self.rotations else (chosen, None)
        drawing = distinct(order, self.count[chosen])
        pictures = self.images.at[chosen[:, None], drawing].get(mode="promise_in_bounds")
        if turns is not None:
            pictures = _turned(pictures, turns)
        return labelled(pictures.astype(jnp.float32) / 255, self.shots)


def labelled(x: Float[Array, "ways each *shape"], shots: int) -> Task:
    """A task of examples sorted by class: the first `shots` of each to learn from, the rest to be judged on."""
    label = jnp.arange(len(x), dtype=jnp.int32)

    def examples(part):
        return Examples(part.reshape(-1, *part.shape[2:]), jnp.repeat(label, part.shape[1]), ways=label >= 0)

    return Task(examples(x[:, :shots]), examples(x[:, shots:]))


def check_enough(count: Int[np.ndarray, " classes"], shots: int, queries: int, names: list[str] | None = None) -> None:
    """Raises UserError if a class has fewer pictures than a task takes of it."""
    least = int(np.argmin(count))
    if count[least] < shots + queries:
        name = f"Class {least}" if names is None else f"Class {names[least]!r}"
        few = int(np.sum(count < shots + queries))
        raise UserError(
            f"{name} has {count[least]} picture{'' if count[least] == 1 else 's'}, and shots and queries, "
            f"{shots} + {queries}, need {shots + queries} ({few} of {len(count)} classes have too few). "
            "Ask for fewer shots or queries, or leave such classes out."
        )


def _turned(
    pictures: UInt8[Array, "ways each side side *colour"], turns: Int[Array, " ways"]
) -> UInt8[Array, "ways each side side *colour"]:
    """Each way's pictures, turned by so many quarters anticlockwise."""
    side = pictures.shape[2]
    place = np.arange(side * side).reshape(side, side)
    places = jnp.asarray(np.stack([np.rot90(place, turn).reshape(-1) for turn in range(4)]))[turns]
    flat = pictures.reshape(*pictures.shape[:2], side * side, -1)
    return jnp.take_along_axis(flat, places[:, None, :, None], axis=2).reshape(pictures.shape)
