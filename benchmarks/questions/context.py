"""What a question may ask of the run: time, ceilings, and how its peers are to be built."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from benchmarks import ceilings
from benchmarks.questions.sizes import Sizes


class Overtime(Exception):
    """What is cut off because it has taken longer than it may."""


class Context:
    """One per question. `seconds` is its budget: past it the question is asked to stop, past twice that it is cut."""

    def __init__(self, sizes: Sizes, seconds: float, run_end: float = float("inf"), known: Any = None):
        self.sizes, self.run_end = sizes, run_end
        self.soft_end = min(time.monotonic() + seconds, run_end)
        self.known = known if known is not None else {}
        self.stopped = False

    @property
    def repeats(self) -> int:
        """Measured turns of every program."""
        return self.sizes.repeats

    @property
    def peer_mode(self) -> str | None:
        """How torch compiles its programs; None: not at all."""
        return self.sizes.peer_mode

    @property
    def peer_seconds(self) -> float:
        """How long one program of a peer may compile."""
        return self.sizes.peer_seconds

    def expired(self) -> bool:
        """Whether the question must stop with what it has; ask before every measurement but the first."""
        self.stopped |= time.monotonic() > self.soft_end
        return self.stopped

    @cached_property
    def ceilings(self) -> ceilings.Ceilings:
        """Those of this device, measured in this run, once."""
        if "ceilings" not in self.known:
            sizes = self.sizes
            self.known["ceilings"] = ceilings.measure(sizes.product, sizes.copy_megabytes, sizes.repeats)
        return self.known["ceilings"]

    @contextlib.contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Raise Overtime inside the block once it has taken `seconds`; blocks may nest, the nearest end counts.

        What runs in C++ is cut when it comes back to Python. Only the main thread is watched.
        """
        before, began = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()
        handler = signal.getsignal(signal.SIGALRM)
        allowed = min(seconds, before) if before else seconds

        def stop(*_: Any) -> None:
            raise Overtime(f"cut off after {allowed:.1f} s")

        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, allowed)
        try:
            yield
        finally:
            signal.signal(signal.SIGALRM, handler)
            left = max(before - (time.monotonic() - began), 0.01) if before else 0.0
            signal.setitimer(signal.ITIMER_REAL, left)
