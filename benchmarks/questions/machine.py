"""What the device itself reaches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks import machine
from benchmarks.ceilings import data_sheet
from benchmarks.questions.context import Context
from benchmarks.questions.sizes import Sizes


def ceilings(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """One row: large products by precision and a large copy, with what the data sheet promises."""
    import jax

    found, promised = context.ceilings, data_sheet(jax.devices()[0].device_kind)
    row: dict[str, Any] = {"product": sizes.product, "copy_megabytes": sizes.copy_megabytes}
    for precision, flops in found.flops.items():
        row[f"{precision}_tflop_per_second"] = round(flops / 1e12, 3)
    row["copy_gigabytes_per_second"] = round(found.bytes / 1e9, 2)
    if promised:
        row["data_sheet"] = {name: value / 1e12 for name, value in promised.flops.items()}
        row["data_sheet"]["copy_gigabytes_per_second"] = promised.bytes / 1e9
    yield row | machine.driver()
