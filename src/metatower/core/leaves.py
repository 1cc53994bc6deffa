"""Which numbers a storey learns: wrappers for single values, and selections of leaves.

The learnable leaves of a tree are its floating-point arrays, minus whatever stands under a
`Constant`, minus whatever a selector leaves out. They are always handled as a *list*, in tree
order, so that per-leaf hyper-parameters stay aligned however often the tree is lifted.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

Selector = Callable[[Any], Any]
"""Takes a tree and returns one of its nodes, or a sequence of them, as in `equinox.tree_at`."""


class Constant(eqx.Module):
    """A value that no storey learns. Read it with `value`."""

    content: PyTree


class Positive(eqx.Module):
    """A positive number, or tree of them, that is learned through its logarithm.

    A gradient step on the logarithm changes the number by a *factor*, which suits learning rates:
    they stay positive and one step size fits rates of any magnitude. Read it with `value`.
    """

    log: PyTree[Float[Array, "..."]]

    def __init__(self, number: PyTree):
        """Args: number: scalar, array or tree of them, all above zero."""
        numbers = jax.tree.map(jnp.asarray, number)
        for leaf in jax.tree.leaves(numbers):
            if not isinstance(leaf, jax.core.Tracer) and not bool(jnp.all(leaf > 0)):
                raise ValueError(f"Positive takes numbers above zero, got {leaf}. Use a plain array for a signed one.")
        self.log = jax.tree.map(lambda x: jnp.log(x.astype(jnp.result_type(float))), numbers)


def value(tree: PyTree) -> PyTree:
    """The numbers behind `Constant` and `Positive` wrappers; anything else is returned as it is."""

    def read(node):
        if isinstance(node, Constant):
            return node.content
        if isinstance(node, Positive):
            return jax.tree.map(jnp.exp, node.log)
        return node

    return jax.tree.map(read, tree, is_leaf=lambda node: isinstance(node, Constant | Positive))


def strong(leaf: Array) -> Array:
    """The same numbers with a type of their own.

    `jnp.array(0.4)` is weakly typed: it would change its type at the first step, or on its way through a file, and
    what is compiled for one type is compiled again for the other.
    """
    return jax.lax.convert_element_type(leaf, leaf.dtype)


def constant_unless_array(tree: PyTree) -> PyTree:
    """Wraps plain Python numbers in `Constant`; arrays and wrapped values stay learnable.

    This is the convention of all rules: `sgd(0.4)` has a fixed rate, `sgd(jnp.array(0.4))` a learned one.
    """

    def wrap(x):
        if isinstance(x, Constant | Positive):
            return x
        return strong(x) if eqx.is_array(x) else Constant(float(x))

    return jax.tree.map(
        wrap,
        tree,
        is_leaf=lambda x: isinstance(x, Constant | Positive),
    )


def _flatten(tree):
    return jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, Constant))


def _chosen(tree: PyTree, learn: Selector | None) -> list[int]:
    """Positions, in the flattened tree, of the leaves that are learned."""
    flat, structure = _flatten(tree)
    floating = [i for i, (_, leaf) in enumerate(flat) if eqx.is_inexact_array(leaf)]
    if learn is None:
        return floating
    positions = jax.tree_util.tree_unflatten(structure, range(len(flat)))
    try:
        picked = learn(positions)
    except Exception as error:
        raise ValueError(
            f"The selector `learn=` failed on {type(tree).__name__}: {error}. It is given the tree and returns "
            "the nodes to learn, for example `learn=lambda objective: objective.learner.rule.rate`."
        ) from error
    wanted = {leaf for leaf in jax.tree.leaves(picked) if isinstance(leaf, int)}
    chosen = [i for i in floating if i in wanted]
    if not chosen:
        raise ValueError(
            f"The selector `learn=` chose no floating-point array of {type(tree).__name__}. Its learnable leaves are: "
            + ", ".join(names(tree))
        )
    return chosen


def pick(tree: PyTree, learn: Selector | None = None) -> list[Array]:
    """The learnable leaves of `tree`, in tree order."""
    flat, _ = _flatten(tree)
    return [flat[i][1] for i in _chosen(tree, learn)]


def put(tree: PyTree, leaves: Sequence[Array], learn: Selector | None = None) -> PyTree:
    """`tree` with its learnable leaves replaced: `put(t, pick(t)) == t`."""
    flat, structure = _flatten(tree)
    content = [leaf for _, leaf in flat]
    for i, leaf in zip(_chosen(tree, learn), leaves, strict=True):
        content[i] = leaf
    return jax.tree_util.tree_unflatten(structure, content)


def names(tree: PyTree, learn: Selector | None = None) -> list[str]:
    """The dotted paths of the learnable leaves, in the order of `pick`."""
    flat, _ = _flatten(tree)
    chosen = range(len(flat)) if learn is None else _chosen(tree, learn)
    return [
        jax.tree_util.keystr(flat[i][0], simple=True, separator=".") for i in chosen if eqx.is_inexact_array(flat[i][1])
    ]
