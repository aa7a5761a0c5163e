"""Arithmetic that a JAX function asks for, read from its traced form; nothing is run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


def flops(function: Callable[..., Any], *args: Any) -> int:
    """FLOPs of the matrix products and convolutions of function(*args), two per multiply-add; all else is left out.

    Loops of known length count once per turn; of the forms of a computation for several platforms the plain one counts.
    """
    import jax

    return _flops(jax.make_jaxpr(function)(*args).jaxpr)


def _flops(jaxpr: Any) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
    name, params, out = equation.primitive.name, equation.params, equation.outvars[0].aval
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * out.size * math.prod(kernel) // features
    if name == "dot_general":
        summed = params["dimension_numbers"][0][0]
        return 2 * out.size * math.prod(equation.invars[0].aval.shape[axis] for axis in summed)
    if "branches" in params:
        return _flops(params["branches"][-1].jaxpr)  # the plain form comes last
    inner = [_flops(getattr(params[key], "jaxpr", params[key])) for key in _INNER if key in params]
    return params.get("length", 1) * sum(inner)


_INNER = ("jaxpr", "call_jaxpr", "body_jaxpr")
