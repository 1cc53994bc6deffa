"""Where a run starts, and which key each of its steps has: pure functions of the seed."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from metatower.core.contract import Learner, State


def step_key(seed: int, step: int) -> PRNGKeyArray:
    """The key of step number `step` (the first is 0): all that decides which tasks it sees."""
    return jax.random.fold_in(jax.random.key(seed), step)


def start(learner: Learner, seed: int) -> State:
    """The state before the first step, in arrays of its own (the loop reuses their memory)."""
    # the last number that `fold_in` takes: no step ever has it
    return own(learner.start(key=step_key(seed, 2**32 - 1)))


def own(tree: PyTree) -> PyTree:
    """`tree` with every array copied, and every number made an array, so that its memory may be donated."""

    def copy(leaf):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.clone(leaf)
        if isinstance(leaf, jax.Array | np.ndarray | np.generic):
            return jnp.array(leaf, dtype=leaf.dtype, copy=True)  # with the type said, it is no longer "weak"
        return jnp.asarray(leaf) if isinstance(leaf, bool | int | float | complex) else leaf

    return jax.tree.map(copy, tree)
