"""Linear maps that bring their own transpose, where the one that JAX derives is slow."""

from collections.abc import Callable

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

Linear = Callable[..., tuple[Array, ...]]
"""Takes arrays, gives a tuple of arrays; linear in all of them together."""

_linear = Primitive("linear_with_transpose")
_linear.multiple_results = True


def with_transpose(forward: Linear, transpose: Linear) -> Linear:
    """`forward`, whose derivative in reverse mode is `transpose`, and the other way round; to any order.

    Unlike `jax.custom_vjp` it keeps forward mode; unlike `jax.custom_derivatives.linear_call` it can be batched.
    Both functions must be pure and linear: zeros to zeros.

    >>> import jax.numpy as jnp
    >>> double = with_transpose(lambda x: (2 * x,), lambda y: (2 * y,))
    >>> jax.grad(lambda x: double(x)[0] ** 2)(3.0)
    Array(24., dtype=float32)
    """

    def call(*arrays):
        return tuple(_linear.bind(*arrays, forward=forward, transpose=transpose))

    return call


def _impl(*arrays, forward, transpose):
    del transpose
    return list(forward(*arrays))


def _abstract(*arrays, forward, transpose):
    del transpose
    shapes = jax.eval_shape(forward, *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays))
    return [jax.core.ShapedArray(s.shape, s.dtype) for s in shapes]


def _jvp(primals, tangents, *, forward, transpose):
    out = _linear.bind(*primals, forward=forward, transpose=transpose)
    return out, _linear.bind(*map(ad.instantiate_zeros, tangents), forward=forward, transpose=transpose)


def _transpose(cotangents, *primals, forward, transpose):
    del primals
    return _linear.bind(*map(ad.instantiate_zeros, cotangents), forward=transpose, transpose=forward)


def _batch(arrays, axes, *, forward, transpose):
    size = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
    moved = [batching.bdim_at_front(a, axis, size) for a, axis in zip(arrays, axes, strict=True)]
    out = _linear.bind(*moved, forward=jax.vmap(forward), transpose=jax.vmap(transpose))
    return out, [0] * len(out)


_linear.def_impl(_impl)
_linear.def_abstract_eval(_abstract)
ad.primitive_jvps[_linear] = _jvp
ad.primitive_transposes[_linear] = _transpose
batching.primitive_batchers[_linear] = _batch
mlir.register_lowering(_linear, mlir.lower_fun(_impl, multiple_results=True))
