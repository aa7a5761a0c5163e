"""What a device can do at the most: by its data sheet, and as large products and a large copy reach it in this run."""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks.timing import alternate


class Ceilings(NamedTuple):
    """Bounds of a device; a precision that is missing has no known one."""

    flops: dict[str, float]  # FLOP/s by precision: bfloat16, tensorfloat32, float32
    bytes: float  # bytes/s, read and written together


# dense peaks (vendor data sheets)
_HOPPER = {"bfloat16": 989e12, "tensorfloat32": 495e12, "float32": 67e12}
_AMPERE = {"bfloat16": 312e12, "tensorfloat32": 156e12, "float32": 19.5e12}
SHEET = {
    "H200": Ceilings(_HOPPER, 4.8e12),
    "H100": Ceilings(_HOPPER, 3.35e12),
    "A100": Ceilings(_AMPERE, 2.04e12),
}
PRECISIONS = ("bfloat16", "tensorfloat32", "float32")


def data_sheet(kind: str) -> Ceilings | None:
    """What the vendor promises of a device kind as JAX names it; None where it is not known here."""
    return next((ceilings for name, ceilings in SHEET.items() if name in kind), None)


def matmul_precision(precision: str) -> str:
    """jax_default_matmul_precision for one of PRECISIONS; what is float32 beside bfloat16 stays float32."""
    return "tensorfloat32" if precision == "tensorfloat32" else "highest"


def measure(size: int, megabytes: int, repeats: int) -> Ceilings:
    """FLOP/s of size^3 products by precision, and bytes/s of a copy of `megabytes` (10^6), medians of `repeats`."""
    calls = {precision: _product(size, precision) for precision in PRECISIONS} | {"copy": _copy(megabytes)}
    seconds = {name: wall / 1e3 for name, (wall, _) in alternate(calls, repeats).items()}
    flops = {precision: 2 * size**3 / seconds[precision] for precision in PRECISIONS}
    return Ceilings(flops, 2 * megabytes * 1e6 / seconds["copy"])


def _product(size: int, precision: str) -> Any:
    import jax
    import jax.numpy as jnp

    kind = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    pair = [jax.random.normal(key, (size, size), kind) for key in jax.random.split(jax.random.key(0))]
    with jax.default_matmul_precision(matmul_precision(precision)):
        run = jax.jit(jnp.matmul).lower(*pair).compile()
    return lambda: jax.block_until_ready(run(*pair))


def _copy(megabytes: int) -> Any:
    import jax
    import jax.numpy as jnp

    values = jnp.zeros(megabytes * 1_000_000 // 4, jnp.int32)
    run = jax.jit(lambda x: x + 1).lower(values).compile()
    return lambda: jax.block_until_ready(run(values))


def roofline(
    seconds: float, gflop: float, megabytes: float, precision: str, ceilings: Ceilings | None, exact: float = 0.0
) -> dict[str, Any]:
    """The share reached of the bound that takes longer, and which that is; the rate reached where none is known.

    exact: those of the gflop that are computed in float32 whatever the precision.
    """
    if ceilings is None or precision not in ceilings.flops:
        rates = {"gflop_per_second": gflop / seconds, "gigabytes_per_second": megabytes / 1e3 / seconds}
        return {name: round(rate, 1) for name, rate in rates.items() if rate}
    bound, least = least_seconds(gflop, megabytes, precision, ceilings, exact)
    return {"roofline_fraction": round(least / seconds, 3), "bound": bound}


def least_seconds(
    gflop: float, megabytes: float, precision: str, ceilings: Ceilings, exact: float = 0.0
) -> tuple[str, float]:
    """Which takes longer, arithmetic or memory, and how many seconds; exact as in roofline."""
    arithmetic = (gflop - exact) / ceilings.flops[precision] + exact / ceilings.flops["float32"]
    times = {"arithmetic": arithmetic * 1e9, "memory": megabytes * 1e6 / ceilings.bytes}
    bound = max(times, key=lambda name: times[name])
    return bound, times[bound]
