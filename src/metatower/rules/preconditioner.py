"""A learned preconditioner: gradients are turned and stretched before a rule sees them."""

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from metatower.core import Rule, State, pick
from metatower.core.leaves import Selector


class Kronecker(Rule):
    """G ← L G R for every leaf with two axes or more, then `rule`.

    Park & Oliva 2019, "Meta-Curvature", https://arxiv.org/abs/1902.03356, equation 6: the Kronecker factors of a
    preconditioner are learned as parameters of the meta-learner. Vectors are multiplied by a square matrix, single
    numbers by a number. At the identity, where `kronecker` starts it, this is `rule`.

    Differs from the paper in: of leaves with more than two axes only the first and the last are mixed, and there is no
    matrix along the spatial ones.
    """

    rule: Rule
    left: list[Array]
    """L of each leaf: `[first axis, first axis]`, or a number for a leaf of no axis."""
    right: list[Array | None]
    """R of each leaf, `[last axis, last axis]`; None for leaves of less than two axes."""

    def start(self, leaves: list[Array]) -> State:
        if [len(jnp.shape(each)) and each.shape[0] for each in self.left] != [x.ndim and len(x) for x in leaves]:
            raise ValueError(
                f"Kronecker: its {len(self.left)} factors fit no list of {len(leaves)} leaves like these. Make it with "
                "`kronecker(objective, rule)`, with the same `learn=` as the learner."
            )
        return self.rule.start(leaves)

    def step(self, state: State, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        turned = []
        for g, left, right in zip(gradient, self.left, self.right, strict=True):
            mixed = left * g if g.ndim == 0 else jnp.tensordot(left, g, 1)
            turned.append(mixed if right is None else mixed @ right)
        return self.rule.step(state, leaves, turned)


def kronecker(objective: PyTree, rule: Rule, *, learn: Selector | None = None) -> Kronecker:
    """`rule` behind a preconditioner for the leaves of `objective`, which is the identity until it is learned.

    Args:
        learn: the learner's selector, if it has one.
    """
    leaves = pick(objective, learn)
    left = [jnp.eye(len(leaf), dtype=leaf.dtype) if leaf.ndim else jnp.ones((), leaf.dtype) for leaf in leaves]
    right = [jnp.eye(leaf.shape[-1], dtype=leaf.dtype) if leaf.ndim > 1 else None for leaf in leaves]
    return Kronecker(rule, left, right)
