"""The product of a linear layer, with derivatives that XLA does well on a CPU where every task has its own weights."""

import jax
from jax.lax import optimization_barrier
from jaxtyping import Array, Float

from metatower.nets.bilinear import Product, product


def dense(x: Float[Array, "n inputs"], w: Float[Array, "inputs outputs"]) -> Float[Array, "n outputs"]:
    """x w, for one w or, under `jax.vmap`, for many."""
    if jax.default_backend() != "cpu":
        return x @ w
    return product(x, w, _MAPS, _MAPS)


def _out(x, w):
    return x @ w


def _first(y, w):
    return y @ w.T


def _second(x, y):
    # XLA has no code of its own for a product of a transposed first factor: it calls a library for every matrix of a
    # batch, which takes three times as long. The barriers keep it from taking the transposition into the product
    if x.shape[1] > y.shape[1]:
        return optimization_barrier(optimization_barrier(y.T) @ x).T
    return optimization_barrier(x.T) @ y


_MAPS = Product(_out, _first, _second)
