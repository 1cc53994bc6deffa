"""The total score of many tasks, a few at a time, whose gradient is added up as they are worked on."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from metatower.core.contract import Scored

One = Callable[[PyTree, PRNGKeyArray], Scored]


def total_score(
    one: One, varied: PyTree, keys: Key[Array, " tasks"], weights: Float[Array, " tasks"], chunk: int
) -> Scored:
    """The sum over tasks of `weight · one(varied, key)`, `chunk` tasks at a time.

    Reverse mode through a loop over tasks keeps what *every* task computed until the backward pass comes to it: as much
    memory as all tasks at once, and on a CPU a good part of the time goes into writing and reading it. But the total is
    linear in the scores, so each chunk can be differentiated while its numbers are still in the cache, and only its
    gradient be kept. Exact, to any order and in forward mode; the derivative of the metrics is taken as zero.
    """
    return _total(varied, keys, weights, one=one, chunk=chunk)


@eqx.filter_custom_jvp
def _total(varied: Any, keys: Any, weights: Any, *, one: One, chunk: int) -> Any:
    return summed(lambda rows: _chunk(one, varied, *rows), (keys, weights), chunk)


@_total.def_jvp
def _total_jvp(primals, tangents, *, one, chunk):
    varied, keys, weights = primals
    moving = jax.tree.map(lambda tangent: tangent is not None, tangents[0], is_leaf=lambda x: x is None)
    moves, rest = eqx.partition(varied, moving)

    def with_gradient(rows):
        def scored(moves):
            return _chunk(one, eqx.combine(moves, rest), *rows)

        return jax.value_and_grad(scored, has_aux=True)(moves)

    (loss, metrics), gradient = summed(with_gradient, (keys, weights), chunk)
    directions = jax.tree.leaves(eqx.filter(tangents[0], eqx.is_array))
    along = sum(jnp.vdot(g, t) for g, t in zip(jax.tree.leaves(gradient), directions, strict=True))
    return (loss, metrics), (along, jax.tree.map(lambda _: None, metrics))


def _chunk(one: One, varied: PyTree, keys: Key[Array, " chunk"], weights: Float[Array, " chunk"]) -> Scored:
    """The weighted sum of the scores of a few tasks, worked on together."""
    if len(keys) == 1:
        return jax.tree.map(lambda x: weights[0] * x, one(varied, keys[0]))
    return jax.tree.map(lambda x: jnp.tensordot(weights, x, 1), jax.vmap(lambda key: one(varied, key))(keys))


def summed(of_chunk: Callable[[PyTree], PyTree], rows: PyTree, chunk: int) -> PyTree:
    """`of_chunk` of every `chunk` rows, added up; the last may be fewer.

    Args:
        of_chunk: takes some of the rows, and gives a sum over them.
        rows: arrays with the same first axis.
        chunk: how many at a time.

    >>> summed(jnp.sum, jnp.arange(5), 2).item()
    10
    """
    number = len(jax.tree.leaves(rows)[0])
    whole = number - number % chunk
    parts = jax.tree.map(lambda x: x[:whole].reshape(whole // chunk, chunk, *x.shape[1:]), rows)
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), parts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_chunk, one))

    def add(total, part):
        return jax.tree.map(jnp.add, total, of_chunk(part)), None

    total, _ = jax.lax.scan(add, zeros, parts)
    return total if whole == number else add(total, jax.tree.map(lambda x: x[whole:], rows))[0]
