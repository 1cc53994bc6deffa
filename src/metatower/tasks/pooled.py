"""A family of distributions seen as one distribution: their mixture."""

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from metatower.core import Task, Tasks
from metatower.core.keys import fork


class Pooled(Tasks):
    """Tasks from a fresh member of a family each time: what *pooled* meta-training trains on.

    They come from both of the member's pools, the one that a run learns from and the one that it is judged on.

    Args:
        family: tasks whose support and query are themselves `Tasks`; of one structure, or at least with tasks of one.
    """

    family: Tasks

    def sample(self, key: PRNGKeyArray) -> Task:
        key_member, key_pool, key_task = fork(key, 3)
        member = self.family.sample(key_member)
        first = jax.random.bits(key_pool) % 2 == 0

        # what both pools share, such as the pictures, must not be copied for every task
        def chosen(one, other):
            return one if one is other else jnp.where(first, one, other)

        if _kind(member.support) == _kind(member.query):
            return jax.tree.map(chosen, member.support, member.query).sample(key_task)
        return jax.tree.map(chosen, member.support.sample(key_task), member.query.sample(key_task))


def _kind(tasks: Tasks) -> tuple:
    return jax.tree.structure(tasks), [jnp.shape(leaf) for leaf in jax.tree.leaves(tasks)]


class Mismatched(Tasks):
    """Members of a family, each with what to learn from of *another* member.

    A learner that is as good here as on the family itself has learned nothing of the member that it is judged on. The
    member of a key is the same as that of `family`, so that differences are paired.

    Args:
        family: tasks whose support and query are of the same structure from member to member.
    """

    family: Tasks

    def sample(self, key: PRNGKeyArray) -> Task:
        # any other key than those that `Expected` and `evaluate` give to members
        other = self.family.sample(jax.random.fold_in(key, 0x6F74))
        return Task(other.support, self.family.sample(key).query)
