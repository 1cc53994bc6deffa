"""Products that bring their own derivatives, and another way to compute them for a batch of each factor."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array


class Product(NamedTuple):
    """A product y = x · w, linear in each factor, with its two derivatives.

    Each of the three maps is bilinear too, and the other two are *its* derivatives: with ⟨y, x · w⟩ = T(x, w, y), they
    are the gradients of T by y, by x and by w. That closes derivatives of every order, in both modes.
    """

    out: Callable[[Array, Array], Array]
    """(x, w) -> y"""
    first: Callable[[Array, Array], Array]
    """(y, w) -> x"""
    second: Callable[[Array, Array], Array]
    """(x, y) -> w"""


OUT, FIRST, SECOND = range(3)
_PARTNERS = {OUT: (FIRST, SECOND), FIRST: (OUT, SECOND), SECOND: (FIRST, OUT)}
"""By which map the cotangent of each map's result goes back to its first and to its second argument."""


def product(x: Array, w: Array, direct: Product, apart: Product) -> Array:
    """`direct.out(x, w)`; a batch of x is one longer x, but a batch of w, or of derivatives by it, goes by `apart`.

    For products that the compiler does well for one w and badly for many, such as convolutions.

    Args:
        x: the first axis is one of independent rows, `[n, ...]`, and so is that of the result.
        w: the other factor, which all rows share.
        direct: the three maps for one w.
        apart: the same maps in operations that suit `jax.vmap` over w.
    """
    return _product.bind(x, w, which=OUT, evaluate=direct.out, direct=direct, apart=apart)


_product = Primitive("product")


def _bind(which, a, b, direct, apart):
    return _product.bind(a, b, which=which, evaluate=direct[which], direct=direct, apart=apart)


@_product.def_impl
def _impl(a, b, *, evaluate, **_):
    return evaluate(a, b)


@_product.def_abstract_eval
def _abstract(a, b, *, evaluate, **_):
    out = jax.eval_shape(evaluate, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (a, b)))
    return jax.core.ShapedArray(out.shape, out.dtype)


def _jvp(primals, tangents, *, which, evaluate, direct, apart):
    (a, b), (a_dot, b_dot) = primals, tangents
    parts = []
    if type(a_dot) is not ad.Zero:
        parts.append(_bind(which, a_dot, b, direct, apart))
    if type(b_dot) is not ad.Zero:
        parts.append(_bind(which, a, b_dot, direct, apart))
    return _bind(which, a, b, direct, apart), sum(parts[1:], parts[0])


def _transpose(cotangent, a, b, *, which, evaluate, direct, apart):
    to_a, to_b = _PARTNERS[which]
    if type(cotangent) is ad.Zero:
        return None, None
    if ad.is_undefined_primal(a):
        # (y, w) -> x and (x, w) -> y keep w second; (x, y) -> w goes back to x by (y, w)
        return _bind(to_a, *((b, cotangent) if which == SECOND else (cotangent, b)), direct, apart), None
    # to w by (x, y), in this order; to y by (x, w)
    return None, _bind(to_b, *((cotangent, a) if which == FIRST else (a, cotangent)), direct, apart)


def _batch(operands, axes, *, which, evaluate, direct, apart):
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    if apart is not None and which != SECOND and axes[1] is None:
        rows = jnp.moveaxis(operands[0], axes[0], 0)
        out = _bind(which, rows.reshape(-1, *rows.shape[2:]), operands[1], direct, apart)
        return out.reshape(*rows.shape[:2], *out.shape[1:]), 0
    # a product still, so that derivatives that are taken after the batch go by the same maps
    a, b = (batching.bdim_at_front(x, axis, size) for x, axis in zip(operands, axes, strict=True))
    return _bind(which, a, b, _batched(direct if apart is None else apart), None), 0


@cache
def _batched(maps: Product) -> Product:
    return Product(*(jax.vmap(each) for each in maps))


ad.primitive_jvps[_product] = _jvp
ad.primitive_transposes[_product] = _transpose
batching.primitive_batchers[_product] = _batch
mlir.register_lowering(_product, mlir.lower_fun(_impl, multiple_results=False))
