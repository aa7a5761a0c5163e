"""Rows of features and logits as a detector takes them: one array, or several by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from quantjax.checks import check_same_length, check_shape


def taking(widths: Mapping[str, int], optional: Mapping[str, int]) -> Callable[[Any], dict[str, np.ndarray]]:
    """`take` of decision.make_predictor for rows of these widths, and of the optional ones where they are given."""
    return partial(named, widths=widths, optional=optional)


def named(rows: Any, widths: Mapping[str, int], optional: Mapping[str, int]) -> dict[str, np.ndarray]:
    """{name: float32 [N, width]} of rows that are an array of the one wanted thing, or a mapping by name.

    Raises ValueError when something is missing or unknown, of another width, or of another number of rows.
    """
    wanted = ", ".join(f"{name} [N, {width}]" for name, width in widths.items())
    if not isinstance(rows, Mapping):
        if len(widths) > 1:
            raise ValueError(f"rows must be given by name, {wanted}, got {type(rows).__name__}")
        rows = {next(iter(widths)): rows}
    known = {**optional, **widths}
    unknown, missing = set(rows) - set(known), set(widths) - set(rows)
    if unknown or missing:
        raise ValueError(f"rows must hold {wanted}, got {', '.join(rows) or 'nothing'}")
    arrays = {name: np.asarray(value, np.float32) for name, value in rows.items()}
    for name, array in arrays.items():
        check_shape(name, array, f"[N, {known[name]}]")
    check_same_length(**arrays)
    return arrays
