"""Mixed mode: forward over reverse."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero, zero_from_primal
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, PyTree

from metatower.core import Scored, State, Unrolled


class MixedMode(Unrolled):
    """Exact, and cheap to differentiate again: the storey above differentiates this gradient by forward over reverse.

    To differentiate a gradient g(θ, c) = ∂L/∂θ by reverse mode, reverse over reverse keeps everything that its
    backward pass computed. But a Hessian is symmetric: what reverse mode wants of a cotangent v,

        vᵀ ∂g/∂(θ, c)  =  d/dε ∂L/∂(θ, c) (θ + εv, c)  at ε = 0,

    is one Jacobian-vector product of the gradient with respect to *all* that the loss depends on (Kemaev et al. 2025,
    "Scalable Meta-Learning via Mixed-Mode Differentiation", arXiv:2505.00793). Only θ and c are kept.

    Give it to the storeys whose steps are differentiated, those below the top. Such a step keeps no more than a
    rematerialised one and recomputes less, so that above it `remat=False` saves time for little memory. Exact to any
    order, and under forward mode. The metrics of an estimate are for showing: their derivative is taken as zero.
    """

    def estimate(self, loss, leaves, state: State, *, key):
        # traced once, the loss shows what it closes over: the c above, and what has no derivative
        program, shape = jax.make_jaxpr(loss, return_shape=True)(leaves, key)
        floating = [i for i, const in enumerate(program.consts) if eqx.is_inexact_array(const)]
        others = _put(program.consts, floating, [None] * len(floating))

        def scored(varied, fixed):
            here, context = varied[: len(leaves)], varied[len(leaves) :]
            others, key = fixed
            flat = jax.core.eval_jaxpr(program.jaxpr, _put(others, floating, context), *here, key)
            return jax.tree.unflatten(jax.tree.structure(shape), flat)

        varied = [*leaves, *(jnp.asarray(program.consts[i]) for i in floating)]
        scored, gradient = _value_and_gradient(scored, varied, len(leaves), (others, key))
        return scored, gradient, state


def _value_and_gradient(
    scored: Callable[[list[Array], PyTree], Scored], varied: list[Array], number: int, fixed: PyTree
) -> tuple[Scored, list[Array]]:
    """`jax.value_and_grad` by the first `number` of `varied`, to be differentiated in mixed mode.

    JAX's `custom_vjp` could say this too, but not under forward mode, and in a scan of gradients of a scan it silently
    gives wrong ones (`tests/gradients/test_mixed.py`). A linear operation that knows its transpose has neither fault.
    """

    @jax.custom_jvp
    def rule(varied, fixed):
        def loss(leaves):
            return scored([*leaves, *varied[number:]], fixed)

        return jax.value_and_grad(loss, has_aux=True)(varied[:number])

    def jvp(primals, tangents):
        (value, metrics), gradient = rule(*primals)  # by this rule once more, if that is differentiated again
        moving = [i for i, tangent in enumerate(tangents[0]) if not isinstance(tangent, SymbolicZero)]

        def forward(primals, directions):
            varied, fixed = primals

            def outputs(moved):
                (value, _), gradient = rule.fun(_put(varied, moving, moved), fixed)
                return [value, *gradient]

            return jax.jvp(outputs, ([varied[i] for i in moving],), (directions,))[1]

        def transpose(primals, cotangents):
            varied, fixed = primals

            def slopes(leaves):
                here = [*leaves, *varied[number:]]
                return jax.grad(lambda moved: scored(_put(here, moving, moved), fixed)[0])([here[i] for i in moving])

            slope, curved = jax.jvp(slopes, (varied[:number],), (cotangents[1:],))
            return [cotangents[0] * s + c for s, c in zip(slope, curved, strict=True)]

        directions = [tangents[0][i] for i in moving]
        along = linear(forward, transpose, primals, directions, [value, *gradient])
        still = jax.tree.map(lambda x: zero_from_primal(x, symbolic_zeros=True), metrics)
        return ((value, metrics), gradient), ((along[0], still), along[1:])

    rule.defjvp(jvp, symbolic_zeros=True)
    return rule(varied, fixed)


def _put(items: Sequence, places: list[int], new: Sequence) -> list:
    """`items` with those at `places` replaced."""
    changed = list(items)
    for place, item in zip(places, new, strict=True):
        changed[place] = item
    return changed


# A linear operation with its own transpose, as `jax.custom_derivatives.linear_call` is, which has no rule for `vmap`
# and cannot be differentiated by what it is not linear in.


def linear(forward: Callable, transpose: Callable, given: PyTree, x: list[Array], like: list[Array]) -> list[Array]:
    """`forward(given, x)`, linear in the list x, with results like `like`; backward it is `transpose(given, y)`."""
    flat, structure = jax.tree.flatten(given)

    def on_flat(function):
        return lambda flat, x: function(jax.tree.unflatten(structure, flat), x)

    types = tuple(jax.typeof(each) for each in like)
    return _linear.bind(*flat, *x, forward=on_flat(forward), transpose=on_flat(transpose), given=len(flat), types=types)


_linear = jex.Primitive("linear")
_linear.multiple_results = True


@_linear.def_impl
def _evaluate(*operands, forward, transpose, given, types):
    return forward(list(operands[:given]), list(operands[given:]))


@_linear.def_abstract_eval
def _types(*operands, forward, transpose, given, types):
    return types


def _jvp(primals, tangents, *, forward, given, **params):
    def split(values):
        return list(values[:given]), list(values[given:])

    flat, x = split(primals)
    flat_dot, x_dot = split(tangents)
    out = _linear.bind(*primals, forward=forward, given=given, **params)
    parts = []
    if any(type(t) is not ad.Zero for t in x_dot):
        x_dot = [ad.instantiate_zeros(t) for t in x_dot]
        parts.append(_linear.bind(*flat, *x_dot, forward=forward, given=given, **params))
    moving = [i for i, t in enumerate(flat_dot) if type(t) is not ad.Zero]
    if moving:
        at, along = [flat[i] for i in moving], [flat_dot[i] for i in moving]
        parts.append(jax.jvp(lambda some: forward(_put(flat, moving, some), x), (at,), (along,))[1])
    return out, [sum(each[1:], each[0]) for each in zip(*parts, strict=True)]


def _transpose(cotangents, *operands, transpose, given, **_):
    return [None] * given + transpose(list(operands[:given]), [ad.instantiate_zeros(each) for each in cotangents])


def _batch(operands, dims, *, forward, transpose, given, types):
    size = next(x.shape[d] for x, d in zip(operands, dims, strict=True) if d is not None)
    operands = [
        x if i < given and d is None else batching.bdim_at_front(x, d, size)
        for i, (x, d) in enumerate(zip(operands, dims, strict=True))
    ]
    axes = [None if d is None else 0 for d in dims[:given]]

    def mapped(function):
        return jax.vmap(function, in_axes=(axes, 0), axis_size=size)

    types = tuple(each.update(shape=(size, *each.shape)) for each in types)
    out = _linear.bind(*operands, forward=mapped(forward), transpose=mapped(transpose), given=given, types=types)
    return out, [0] * len(out)


ad.primitive_jvps[_linear] = _jvp
ad.primitive_transposes[_linear] = _transpose
batching.primitive_batchers[_linear] = _batch
mlir.register_lowering(_linear, mlir.lower_fun(_evaluate, multiple_results=True))
