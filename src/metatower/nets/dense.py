"""The product of a linear layer: of few rows with each of many matrices it is what XLA does badly on a CPU."""

import jax
from jaxtyping import Array, Float

from metatower.nets.bilinear import Product, product


def dense(x: Float[Array, "n inputs"], w: Float[Array, "inputs outputs"]) -> Float[Array, "n outputs"]:
    """x w, with derivatives that suit `jax.vmap` over w, where every task has weights of its own."""
    return product(x, w, _TOGETHER, _APART)


def _out(x, w):
    return x @ w


def _first(y, w):
    return y @ w.T


def _second(x, y):
    return x.T @ y


def _second_apart(x, y):
    # the barrier keeps XLA from taking the transposition into the product, for which it has no code of its own on a CPU
    # and calls a library for every matrix; the longer side of the result is the one that is vectorised
    if x.shape[1] > y.shape[1]:
        return (jax.lax.optimization_barrier(y.T) @ x).T
    return jax.lax.optimization_barrier(x.T) @ y


_TOGETHER, _APART = Product(_out, _first, _second), Product(_out, _first, _second_apart)
