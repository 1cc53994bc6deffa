"""Equations with a small positive definite matrix, for many tasks at once on several processor cores.

JAX 0.10's LAPACK shares a batch of matrices among the threads of XLA's pool. Where two CPU devices do so at the same
time, each waits for threads that the other has, for ever. So small systems are solved without it.
"""

import jax
import jax.numpy as jnp
from jax.lax import fori_loop
from jaxtyping import Array, Float

SMALL = 256
"""Rows up to which LAPACK is not called. Elimination goes through the whole matrix for every row, which would take too
long for larger ones; there two devices may still wait for ever."""


def solve(a: Float[Array, "n n"], b: Float[Array, "n *columns"]) -> Float[Array, "n *columns"]:
    """a⁻¹ b, differentiable in both factors, in both modes and any order.

    Args:
        a: symmetric and positive definite, which is not checked.
    """
    if len(a) > SMALL:
        return jax.scipy.linalg.solve(a, b, assume_a="pos")
    back = inverse(jax.lax.stop_gradient(a))

    def refined(product, b):
        x = back @ b
        return x + back @ (b - product(x))

    return jax.lax.custom_linear_solve(lambda x: a @ x, b, refined, symmetric=True)


def inverse(a: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """a⁻¹ by Gauss-Jordan elimination, which needs no pivots where `a` is positive definite."""
    place = jnp.arange(len(a))

    def eliminated(k, m):
        here = place == k
        pivot = m[k, k]
        row = jnp.where(here, 1, m[k]) / pivot
        column = jnp.where(here, 0, m[:, k])
        return jnp.where(here[:, None], row, jnp.where(here, 0, m) - column[:, None] * row)

    return fori_loop(0, len(a), eliminated, a)
