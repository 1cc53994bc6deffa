"""One-shot runs within an alphabet, drawn by two people: the hardest way to ask what Omniglot asks."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt8

from metatower.core import Task, Tasks
from metatower.core.errors import UserError
from metatower.tasks.arrays import resized
from metatower.tasks.chance import distinct, integer, uniforms
from metatower.tasks.episodes import labelled
from metatower.tasks.omniglot import SIZE, read_omniglot

WAYS = 20


class OneShotRuns(Tasks):
    """Characters of one alphabet, one drawing of each by one person to learn from, one by another to be judged on.

    Lake, Salakhutdinov & Tenenbaum 2015, "Human-level concept learning through probabilistic program induction", who
    publish 20 such runs of 20 characters; here they are drawn anew. Every alphabet is as likely as any other.

    Args:
        images: uint8 `[characters, people, h, w]`, the characters of an alphabet one after the other.
        first: where each alphabet begins, `[alphabets]`.
        count: how many characters each has.
        ways: characters per run.
    """

    images: UInt8[Array, "characters people h w"] = eqx.field(converter=jnp.asarray)
    first: Int[Array, " alphabets"] = eqx.field(converter=jnp.asarray)
    count: Int[Array, " alphabets"] = eqx.field(converter=jnp.asarray)
    ways: int = eqx.field(static=True, default=WAYS)
    shots: int = eqx.field(static=True, default=1, init=False)
    queries: int = eqx.field(static=True, default=1, init=False)

    def sample(self, key: PRNGKeyArray) -> Task:
        alphabet, characters, people = uniforms(key, (), (2, self.ways), (2, 2))
        here = integer(alphabet, len(self.count))
        chosen = self.first[here] + distinct(characters, self.count[here])
        drawn = self.images[chosen[:, None], distinct(people, self.images.shape[1])]
        return labelled(drawn.astype(jnp.float32) / 255, 1)


def one_shot_runs(
    split: str = "test", scheme: str = "alphabets", *, ways: int = WAYS, size: int = SIZE
) -> tuple[OneShotRuns, list[str]]:
    """One-shot runs on the alphabets of a split that have enough characters in it, and the names of these alphabets.

    Args:
        split, scheme: which characters, see `Omniglot.members`.
        ways: characters per run.
        size: pixels along a side.

    Raises:
        UserError: no alphabet has so many characters, or the images are not there.
    """
    data = read_omniglot()
    keep = data.members(split, scheme)
    alphabet, images = data.alphabet[keep], data.images[keep]
    found, first, count = np.unique(alphabet, return_index=True, return_counts=True)
    enough = count >= ways
    if ways < 2 or not enough.any():
        raise UserError(f"Expected 2 to {count.max()} ways, the characters of the largest alphabet; got {ways}.")
    runs = OneShotRuns(resized(images, size), first[enough], count[enough], ways)
    return runs, [data.names[i] for i in found[enough]]
