"""A family of distributions seen as one distribution: their mixture."""

from jaxtyping import PRNGKeyArray

import jax

from metatower.core import Task, Tasks


class Pooled(Tasks):
    """Tasks from a fresh member of a family each time: what *pooled* meta-training trains on.

    Args:
        family: tasks whose support is itself a `Tasks`.
    """

    family: Tasks

    def sample(self, key: PRNGKeyArray) -> Task:
        key_member, key_task = jax.random.split(key)
        return self.family.sample(key_member).support.sample(key_task)
