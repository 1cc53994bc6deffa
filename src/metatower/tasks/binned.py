"""Distributions whose tasks come from numbered bins, so that whoever meta-trains on one can choose among them."""

import dataclasses
from abc import abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.core import Task, Tasks
from metatower.core.keys import fork
from metatower.tasks.chance import integer, ranks, uniforms


class Binned(Tasks):
    """A distribution of tasks that has `bins` parts; `sample` draws from all of them alike.

    What a bin means is the distribution's business: a difficulty, a cluster, a source of data. The number of bins is
    fixed, which of them is good for what is not known to a learner.
    """

    @property
    @abstractmethod
    def bins(self) -> int:
        """How many there are; a Python number, as it decides shapes."""

    @abstractmethod
    def sample_from(self, which: Int[Array, ""], key: PRNGKeyArray) -> Task:
        """One task of this bin, counted from 0; a pure function of the key and of the leaves."""

    def sample(self, key: PRNGKeyArray) -> Task:
        key_bin, key_task = fork(key, 2)
        (chance,) = uniforms(key_bin, ())
        return self.sample_from(integer(chance, self.bins), key_task)


def sample_from(tasks: Tasks, which: Int[Array, ""], key: PRNGKeyArray) -> Task:
    """A task of this bin; of the whole distribution where it has none, as if all bins were alike."""
    return tasks.sample_from(which, key) if isinstance(tasks, Binned) else tasks.sample(key)


class CorruptedSources(Binned):
    """Tasks from several sources, some of which deliver wrong support sets.

    A task of a bin is corrupted with the bin's probability: its support set is then that of a task of another
    distribution, or its own with shuffled targets, while its query is what it was. Who trains on it learns not to trust
    a support set.

    Args:
        tasks: the distribution.
        others: where wrong support sets come from, of the same structure; None to shuffle the targets `y`.
        chance: of each bin, that a task is corrupted.
    """

    tasks: Tasks
    others: Tasks | None
    chance: Float[Array, " bin"]

    @property
    def bins(self) -> int:
        return len(self.chance)

    def sample_from(self, which: Int[Array, ""], key: PRNGKeyArray) -> Task:
        key_task, key_other, key_chance = fork(key, 3)
        task = self.tasks.sample(key_task)
        other = self._wrong(task.support, key_other)
        (chance,) = uniforms(key_chance, ())
        wrong = chance < self.chance[which]
        support = jax.tree.map(lambda mine, its: jnp.where(wrong, its, mine), task.support, other)
        return Task(support, task.query)

    def _wrong(self, support: Any, key: PRNGKeyArray) -> Any:
        if self.others is not None:
            return self.others.sample(key).support
        (order,) = uniforms(key, (len(support.y),))
        return dataclasses.replace(support, y=support.y[jnp.argsort(order)])


class CorruptedFamily(Tasks):
    """A family of distributions with corrupted sources to learn from, and clean tasks to be judged on.

    Of the sources of a distribution a share ρ is corrupted, one more with the probability that is left over; ρ is drawn
    from `shares`, which sources they are is drawn, too. What a distribution is judged on is never corrupted.

    Args:
        family: its tasks are pairs of distributions with disjoint pools of tasks.
        shares: the values that ρ may have, from 0 to 1.
        bins: sources of each distribution.
        labels: whether a corrupted source shuffles the targets of a task, and does not exchange its support set.
    """

    family: Tasks
    shares: Float[Array, " share"]
    bins: int
    labels: bool

    def __init__(
        self, family: Tasks, shares: tuple[float, ...] = (0.0, 0.25, 0.5), bins: int = 8, labels: bool = False
    ):
        if bins < 1 or not shares or not all(0 <= share <= 1 for share in shares):
            raise ValueError(
                f"CorruptedFamily: expected at least one bin and shares from 0 to 1, got {bins} and {shares}."
            )
        self.family, self.shares, self.bins, self.labels = family, jnp.asarray(shares, float), bins, labels

    def sample(self, key: PRNGKeyArray) -> Task:
        key_member, key_other, key_own = fork(key, 3)
        member = self.family.sample(key_member)
        other = None if self.labels else self.family.sample(key_other).support
        chance, order = uniforms(key_own, (), (self.bins,))
        share = self.shares[integer(chance, len(self.shares))]
        wrong = jnp.clip(share * self.bins - ranks(order), 0.0, 1.0)
        clean = jnp.zeros_like(wrong)
        return Task(CorruptedSources(member.support, other, wrong), CorruptedSources(member.query, other, clean))
