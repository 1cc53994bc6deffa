"""Floating-point operations of a traced program.

XLA's own `cost_analysis` counts the body of a loop once, however often it runs, which at storey 2 is wrong by orders
of magnitude. Here the body of a `scan` counts as often as it runs.
"""

import math
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp

_MOVES = """
    broadcast_in_dim concatenate convert_element_type copy copy_p copy_to_host_async device_put dynamic_slice
    dynamic_update_slice empty expand_dims gather iota optimization_barrier pad pbroadcast pvary reduce_precision
    reshape rev select_n slice split squeeze stop_gradient transpose random_bits random_seed random_wrap random_unwrap
    random_split random_fold_in random_clone bitcast_convert_type
"""
MOVES = frozenset(_MOVES.split())
"""Primitives that move or reinterpret numbers without computing any."""


def count(jaxpr: jex.Jaxpr) -> tuple[float, tuple[str, ...]]:
    """Floating-point operations of one run of `jaxpr`, and what the count had to guess.

    A multiplication and an addition count as one each, so does a transcendental function; integer arithmetic, random
    bits and memory traffic count as nothing. Of a `cond` the dearest branch counts; of a `while`, whose number of
    rounds is not known before the run, one round (and the returned notes say so).
    """
    total, notes = 0.0, []
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        inner = [each for value in params.values() for each in _jaxprs(value)]
        if callable(params.get("evaluate")):  # an operation of ours, which other operations make up
            operands: list[Any] = [v.aval for v in equation.invars]
            shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in operands]
            total += count(jax.make_jaxpr(params["evaluate"])(*shapes).jaxpr)[0]
        elif name == "dot_general":
            total += _dot(equation)
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "cond":
            counted = [count(branch) for branch in inner]
            total += max(flops for flops, _ in counted)
            notes += [note for _, found in counted for note in found]
        elif name in ("scatter-add", "scatter_add", "scatter-mul", "scatter_mul"):
            total += _floats(equation.invars[2:])
        elif inner and not name.startswith(("reduce", "scatter")):
            times = _times(name, params)
            if name == "while":
                notes.append("a while loop, whose rounds are not known before the run, counts as one round")
            for each in inner:
                flops, found = count(each)
                total += times * flops
                notes += found
        elif name.startswith(("reduce", "arg", "cum")):
            total += _floats(equation.invars)
        elif name not in MOVES and not name.startswith("scatter"):
            total += _floats(equation.outvars)
    return total, tuple(dict.fromkeys(notes))


def _times(name: str, params: dict) -> int:
    if name == "scan":
        return params["length"]
    if name == "shard_map":
        return math.prod(params["mesh"].shape.values())
    return 1


def _jaxprs(value) -> list[jex.Jaxpr]:
    """The programs among the parameters of an operation."""
    if isinstance(value, jex.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, jex.Jaxpr):
        return [value]
    if isinstance(value, tuple | list):
        return [each for item in value for each in _jaxprs(item)]
    return []


def _floats(variables) -> float:
    shapes = (v.aval for v in variables)
    return float(sum(math.prod(a.shape) for a in shapes if jnp.issubdtype(getattr(a, "dtype", bool), jnp.floating)))


def _dot(equation) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval, equation.outvars[0].aval
    return 2.0 * math.prod(out.shape) * math.prod(left.shape[d] for d in contracted)


def _convolution(equation) -> float:
    kernel, out = equation.invars[1].aval, equation.outvars[0].aval
    outputs = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * math.prod(out.shape) * math.prod(kernel.shape) / outputs
