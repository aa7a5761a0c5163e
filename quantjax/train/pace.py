"""When to save and when to report: by the clock, so that a kill loses a minute or two and saving costs little."""

from __future__ import annotations

import time
from collections.abc import Callable

CHECKPOINT_SECONDS = 60.0  # between checkpoints: what a kill may lose, and a fraction of a percent of the time to save
REPORT_SECONDS = 10.0  # between reports of a loop that has many steps


def every(seconds: float, clock: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
    """Return due(), which is True when at least `seconds` have passed since it last was, or since this call."""
    last = clock()

    def due() -> bool:
        nonlocal last
        now = clock()
        if now - last < seconds:
            return False
        last = now
        return True

    return due
