"""Labels as people store them -> int32 [N]; what is no class number is refused."""

from __future__ import annotations

from typing import Any

import numpy as np

LARGEST = 2**31 - 1


def whole_labels(labels: Any) -> np.ndarray:
    """Class numbers [N] or [N, 1] of any numeric type -> int32 [N]; -1 says "has none".

    Raises:
        ValueError: text, truth values, one-hot rows, fractions, NaN, or numbers outside -1..2^31 - 1.
    """
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] > 1:
        raise ValueError(f"labels must be class numbers [N], got {list(array.shape)}; of one-hot rows take .argmax(1)")
    if array.ndim not in (1, 2):
        raise ValueError(f"labels must have shape [N], got {list(array.shape)}; give one class number per row")
    if array.dtype.kind not in "iuf":
        remedy = "number the classes with np.unique(labels, return_inverse=True)[1]"
        raise ValueError(f"labels must be integers, got dtype {array.dtype}; {remedy}")
    array = array.reshape(-1)
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.floor(array))).all():
        row = int((~(np.isfinite(array) & (array == np.floor(array)))).argmax())
        raise ValueError(f"labels must be whole numbers, got {array[row]} in row {row}; repair or remove that row")
    if array.size and not (array.min() >= -1 and array.max() <= LARGEST):
        raise ValueError(
            f"labels must lie in -1..{LARGEST}, got {array.min()}..{array.max()}; number the classes from 0 on"
        )
    return array.astype(np.int32)
