"""What separates the arrays of a file from those of a network, in a few words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

HEAD = re.compile(r"(^|/)(fc|linear|head|heads|classifier)[./]")
SHOWN = 4  # names an error lists before "and n more"


def difference(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]]) -> str:
    """What is missing, unexpected or of the wrong shape (names -> shapes are wanted), "" when all fits."""
    missing = [name for name in wanted if name not in arrays]
    unexpected = [name for name in arrays if name not in wanted]
    head, extra = heads(wanted), heads(unexpected)
    headless = bool(head) and set(head) <= set(missing)
    if headless:
        missing = [name for name in missing if name not in head]
    unexpected = [name for name in unexpected if name not in extra]
    shapes = [
        f"{name} {list(np.shape(arrays[name]))} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in arrays and np.shape(arrays[name]) != tuple(shape)
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of the wrong shape": shapes}
    found = [f"{len(names)} {kind} ({some(names)})" for kind, names in kinds.items() if names]
    found += [f"the head is missing ({some(head)}): give the weights of the whole classifier"] if headless else []
    found += [f"there is an extra head ({some(extra)})"] if extra else []
    return "; ".join(found)


def heads(names: Iterable[str]) -> list[str]:
    """Those of the names that belong to a last layer, whatever it is called."""
    return [name for name in names if HEAD.search(name)]


def check_finite_weights(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError that names the arrays with NaN or infinity."""
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(f"the weights hold NaN or infinity in {some(bad)}; copy or download them again")


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
