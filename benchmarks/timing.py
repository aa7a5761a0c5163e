"""Timing programs against each other on a machine whose speed drifts: in turns, by medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

WARM_UP, FEWEST = 2, 5


def alternate(
    calls: dict[str, Callable[[], Any]], repeats: int, until: float = float("inf"), pause: float = 0.0
) -> dict[str, tuple[float, float]]:
    """Median wall and processor milliseconds of each call, run in turns after two unmeasured ones.

    `until` is a reading of time.monotonic() after which no further turn begins, once there are FEWEST measured ones.
    `pause` are seconds of rest before every call.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(repeats + WARM_UP):
        if turn >= FEWEST + WARM_UP and time.monotonic() > until:
            break
        for name, call in calls.items():
            time.sleep(pause)
            wall, processor = time.perf_counter(), time.process_time()
            call()
            taken = (time.perf_counter() - wall, time.process_time() - processor)
            if turn >= WARM_UP:
                times[name].append(taken)
    return {n: tuple(1e3 * statistics.median(column) for column in zip(*t, strict=True)) for n, t in times.items()}
