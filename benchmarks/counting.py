"""Arithmetic and traffic that a JAX function asks for, read from its traced form; nothing is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Work(NamedTuple):
    """What the convolutions and matrix products of a function ask for; all else is left out."""

    flops: int  # two per multiply-add
    bytes: int  # their operands read and their results written, each once
    exact: int = 0  # those of the flops that are products of float32 in full precision, whatever the rest computes in


def work(function: Callable[..., Any], *args: Any, platform: str | None = None) -> Work:
    """The work of function(*args); arguments may be jax.ShapeDtypeStruct.

    Loops of known length count once per turn. Of the forms of a computation for several platforms that of `platform`
    counts, by default the plain one.
    """
    import jax

    return work_of(jax.make_jaxpr(function)(*args).jaxpr, platform)


def flops(function: Callable[..., Any], *args: Any) -> int:
    """FLOPs of the matrix products and convolutions of function(*args), two per multiply-add; all else is left out."""
    return work(function, *args).flops


def work_of(jaxpr: Any, platform: str | None = None) -> Work:
    """The work of a function that is traced already."""
    return _total(_equation(equation, platform) for equation in jaxpr.eqns)


def _total(parts: Iterable[Work], turns: int = 1) -> Work:
    return Work(*(turns * sum(column) for column in zip(Work(0, 0), *parts, strict=True)))


def _equation(equation: Any, platform: str | None) -> Work:
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        return _product(equation, math.prod(kernel) // features)
    if name == "dot_general":
        summed = params["dimension_numbers"][0][0]
        return _product(equation, math.prod(equation.invars[0].aval.shape[axis] for axis in summed))
    if name.startswith("dot_product_attention_fwd"):  # cuDNN's; queries [B, N, heads, d] and keys [B, M, heads, d]
        return _product(equation, 2 * equation.invars[1].aval.shape[1])
    if "branches" in params:
        return work_of(_form(params, platform).jaxpr, platform)
    inner = (work_of(getattr(params[key], "jaxpr", params[key]), platform) for key in _INNER if key in params)
    return _total(inner, params.get("length", 1))


def _product(equation: Any, summed: int) -> Work:
    """Work of a convolution or a matrix product with `summed` multiply-adds for every entry of its result."""
    from jax.lax import Precision

    flops = 2 * summed * equation.outvars[0].aval.size
    traffic = sum(v.aval.size * v.aval.dtype.itemsize for v in (*equation.invars, *equation.outvars))
    full = equation.params.get("precision") in (Precision.HIGHEST, (Precision.HIGHEST, Precision.HIGHEST))
    exact = full and equation.invars[0].aval.dtype.itemsize == 4
    return Work(flops, traffic, flops if exact else 0)


def _form(params: dict[str, Any], platform: str | None) -> Any:
    """The form for a platform where branches are forms for platforms, else the last one, which is the plain one."""
    platforms = params.get("branches_platforms") or ()
    found = [form for form, own in zip(params["branches"], platforms, strict=False) if own and platform in own]
    return found[0] if found else params["branches"][-1]


_INNER = ("jaxpr", "call_jaxpr", "body_jaxpr")
