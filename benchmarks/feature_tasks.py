"""Tasks of features that were computed once, so that no network runs while learners of features are compared."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.core import Task, Tasks
from metatower.tasks.chance import distinct, uniforms
from metatower.tasks.episodes import labelled


class FeatureTasks(Tasks):
    """N-way K-shot tasks of vectors: the same choices for a key as `tasks.episodes.Episodes` makes among pictures.

    Args:
        vectors: `[classes, vectors, feature]`.
        ways, shots, queries: classes per task, and vectors of each in its support and in its query.
        count: how many vectors each class has; all if None.
    """

    vectors: Float[Array, "classes vectors feature"] = eqx.field(converter=jnp.asarray)
    ways: int = eqx.field(static=True, default=5)
    shots: int = eqx.field(static=True, default=1)
    queries: int = eqx.field(static=True, default=15)
    count: Int[Array, " classes"] | None = None

    def sample(self, key: PRNGKeyArray) -> Task:
        classes, vectors, _ = self.vectors.shape
        count = np.full(classes, vectors, np.int32) if self.count is None else self.count
        pick, order = uniforms(key, (2, self.ways), (self.ways, 2, self.shots + self.queries))
        chosen = distinct(pick, classes)
        return labelled(self.vectors[chosen[:, None], distinct(order, jnp.asarray(count)[chosen])], self.shots)
