"""Timing programs against each other on a machine whose speed drifts: in turns, by medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def alternate(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, float]]:
    """Median wall and processor milliseconds of each call, run in turns after two unmeasured ones."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(repeats + 2):
        for name, call in calls.items():
            wall, processor = time.perf_counter(), time.process_time()
            call()
            taken = (time.perf_counter() - wall, time.process_time() - processor)
            if turn >= 2:
                times[name].append(taken)
    return {n: tuple(1e3 * statistics.median(column) for column in zip(*t, strict=True)) for n, t in times.items()}
