"""Arithmetic and traffic that a JAX function asks for, read from its traced form; nothing is run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Work(NamedTuple):
    """What the convolutions and matrix products of a function ask for; all else is left out."""

    flops: int  # two per multiply-add
    bytes: int  # their operands read and their results written, each once


def work(function: Callable[..., Any], *args: Any) -> Work:
    """The work of function(*args); arguments may be jax.ShapeDtypeStruct.

    Loops of known length count once per turn; of the forms of a computation for several platforms the plain one counts.
    """
    import jax

    return _work(jax.make_jaxpr(function)(*args).jaxpr)


def flops(function: Callable[..., Any], *args: Any) -> int:
    """FLOPs of the matrix products and convolutions of function(*args), two per multiply-add; all else is left out."""
    return work(function, *args).flops


def _work(jaxpr: Any) -> Work:
    parts = [_equation(equation) for equation in jaxpr.eqns]
    return Work(sum(part.flops for part in parts), sum(part.bytes for part in parts))


def _equation(equation: Any) -> Work:
    name, params, out = equation.primitive.name, equation.params, equation.outvars[0].aval
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        return Work(2 * out.size * math.prod(kernel) // features, _traffic(equation))
    if name == "dot_general":
        summed = params["dimension_numbers"][0][0]
        multiply_adds = out.size * math.prod(equation.invars[0].aval.shape[axis] for axis in summed)
        return Work(2 * multiply_adds, _traffic(equation))
    if "branches" in params:
        return _work(params["branches"][-1].jaxpr)  # the plain form comes last
    inner = [_work(getattr(params[key], "jaxpr", params[key])) for key in _INNER if key in params]
    turns = params.get("length", 1)
    return Work(turns * sum(part.flops for part in inner), turns * sum(part.bytes for part in inner))


def _traffic(equation: Any) -> int:
    return sum(v.aval.size * v.aval.dtype.itemsize for v in (*equation.invars, *equation.outvars))


_INNER = ("jaxpr", "call_jaxpr", "body_jaxpr")
