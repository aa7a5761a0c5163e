"""Standard streams that no command fails at: closed ones, ones that nobody reads any more, ones of another alphabet."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Lasting:
    """A text stream that takes everything; what can no longer be written, behind `| head` or on a full disk, is lost.

    `lost` says whether that has happened. Characters that the stream cannot encode come as backslashes.
    """

    def __init__(self, stream: Any):
        self.stream, self.lost = stream, False
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write, or let go."""
        with self._letting_go():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or let go."""
        with self._letting_go():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextmanager
    def _letting_go(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.lost = True
            with suppress(OSError, ValueError):  # what waits in the buffer goes where it disturbs nobody at the end
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Context, or decorator of a `main`: sys.stdout and sys.stderr are there and raise nothing."""
    _fill_gaps()
    kept = sys.stdout, sys.stderr
    opened = [open(os.devnull, "w") if stream is None else None for stream in kept]  # noqa: SIM115
    sys.stdout, sys.stderr = (Lasting(new or stream) for new, stream in zip(opened, kept, strict=True))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = kept
        for stream in filter(None, opened):
            stream.close()


def is_lost() -> bool:
    """Whether nobody reads standard output any more."""
    return bool(getattr(sys.stdout, "lost", False))


def draws(stream: Any) -> bool:
    """Whether a stream is a terminal on which lines can be drawn again."""
    return bool(stream.isatty()) and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def _fill_gaps() -> None:
    """Open what stands for the standard streams where the caller closed them: the next file would take the place."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
