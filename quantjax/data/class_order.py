"""The order in which class folders are numbered: a classifier's outputs follow the one of its publisher."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np


def by_number(labels: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels [N] and names [K] sorted as text -> the same sorted as numbers: "2" and "class 2" before "10", "class 10".

    Digits within a name count as one number, other characters as text; a label of no class stays.
    """
    order = sorted(range(len(names)), key=lambda k: _number_key(names[k]))
    place = np.empty(len(names), np.asarray(labels).dtype)
    place[order] = np.arange(len(names))
    known = np.asarray(labels) >= 0
    return np.where(known, place[np.where(known, labels, 0)], labels), tuple(names[k] for k in order)


def _number_key(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part]
