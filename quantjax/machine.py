"""What this process may use of its machine."""

from __future__ import annotations

import os


def cores() -> int:
    """How many CPU cores this process may run on: on Linux those it is bound to, elsewhere all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
