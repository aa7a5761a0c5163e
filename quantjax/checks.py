"""Argument checks: one clear sentence that names the argument, the wanted, the given and the way out."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_shape(name: str, value: Any, shape: str) -> None:
    """Raise ValueError unless `value` has the rank of `shape`, e.g. "[B, D]"; a number in it must match exactly."""
    letters = [s.strip() for s in shape.strip("[]").split(",") if s.strip()]
    given = tuple(np.shape(value))
    fits = len(given) == len(letters) and all(
        not w.isdigit() or int(w) == g for w, g in zip(letters, given, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} must have shape {shape}, got {list(given)}")


def check_same_length(**arrays: Any) -> None:
    """Raise ValueError unless all arrays have the same number of rows."""
    lengths = {name: len(value) for name, value in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError("these need the same number of rows: " + ", ".join(f"{n} has {k}" for n, k in lengths.items()))


def check_finite(name: str, value: Any, remedy: str = "remove or repair those rows first") -> None:
    """Raise ValueError when a concrete array holds NaN or infinity; says how many rows and the first one."""
    array = np.asarray(value)
    bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1) if array.ndim else ~np.isfinite(array)[None]
    if bad.any():
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {int(bad.sum())} of {len(bad)} rows "
            f"(first: row {int(bad.argmax())}); {remedy}"
        )


def check_labels(name: str, labels: Any, num_classes: int) -> None:
    """Raise ValueError unless labels are whole numbers in 0..num_classes-1."""
    array = np.asarray(labels)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be integers, got dtype {array.dtype}; convert with .astype('int32')")
    if array.size and (array.min() < 0 or array.max() >= num_classes):
        raise ValueError(
            f"{name} must lie in 0..{num_classes - 1} ({num_classes} classes), got {array.min()}..{array.max()}; "
            "check the class count of the weights against the data set"
        )


def check_interval(name: str, value: float, low: float, high: float, closed: str = "both") -> None:
    """Raise ValueError unless value lies in the interval; closed is both, left, right or neither."""
    above = value >= low if closed in ("both", "left") else value > low
    below = value <= high if closed in ("both", "right") else value < high
    if not (above and below):
        left, right = "[" if closed in ("both", "left") else "(", "]" if closed in ("both", "right") else ")"
        raise ValueError(f"{name} must lie in {left}{low}, {high}{right}, got {value}")


def check_choice(name: str, value: str, choices: Any) -> None:
    """Raise ValueError unless value is one of choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(sorted(choices))}; got {value!r}")
