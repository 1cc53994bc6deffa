"""What the devices of a mesh exchange when they share the tasks of one storey: two means.

One is of the loss, where the tasks are; the other of the gradient, at that storey and at every one above. That is exact
at every height. Let each device hold a copy of the parameters and all get the same loss L through a mean. Reverse mode
then gives device d the part of dL that came through *its* copy, times the number of devices (the transpose of a sum is
a sum), so that the mean of these parts is the gradient. With one device (`axis` None) nothing is exchanged.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree


def own_share(keys: Key[Array, " tasks"], axis: str | None) -> Key[Array, " own"]:
    """The tasks of this device, the same number on each: where that does not divide, the last task is repeated."""
    return keys if axis is None else keys[jnp.minimum(_positions(len(keys), axis), len(keys) - 1)]


def mean_of_shares(tree: PyTree, tasks: int, axis: str | None) -> PyTree:
    """The mean over all `tasks`, each counted once, of arrays `[own, ...]` of which each device has its share."""
    if axis is None:
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), tree)
    counts = _positions(tasks, axis) < tasks

    def mean(x):
        mine = jnp.where(counts.reshape(-1, *[1] * (x.ndim - 1)), x, 0)
        return jax.lax.psum(jnp.sum(mine, axis=0), axis) / tasks

    return jax.tree.map(mean, tree)


def own_weights(tasks: int, axis: str | None) -> Float[Array, " own"]:
    """What each task of `own_share` counts in the mean over all of them; a repeated one nothing."""
    if axis is None:
        return jnp.full(tasks, 1 / tasks)
    return jnp.where(_positions(tasks, axis) < tasks, 1 / tasks, 0.0)


def sum_over_devices(tree: PyTree, axis: str | None) -> PyTree:
    """The sum over the devices of an axis."""
    return tree if axis is None else jax.lax.psum(tree, axis)


def mean_over_devices(tree: PyTree, axis: str | None) -> PyTree:
    """The mean over the devices of an axis."""
    return tree if axis is None else jax.lax.pmean(tree, axis)


def _positions(tasks: int, axis: str) -> Int[Array, " own"]:
    own = -(-tasks // jax.lax.axis_size(axis))
    return jax.lax.axis_index(axis) * own + jnp.arange(own)
