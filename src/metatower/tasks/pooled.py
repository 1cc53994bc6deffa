"""A family of distributions seen as one distribution: their mixture."""

from jaxtyping import PRNGKeyArray

from metatower.core import Task, Tasks
from metatower.core.keys import fork


class Pooled(Tasks):
    """Tasks from a fresh member of a family each time: what *pooled* meta-training trains on.

    Args:
        family: tasks whose support is itself a `Tasks`.
    """

    family: Tasks

    def sample(self, key: PRNGKeyArray) -> Task:
        key_member, key_task = fork(key, 2)
        return self.family.sample(key_member).support.sample(key_task)
