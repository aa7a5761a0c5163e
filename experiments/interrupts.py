"""Ctrl-C and SIGTERM: the run unwinds and ends with one line, at any moment and within seconds."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

GRACE = 10.0  # seconds to unwind, after which the process ends as it stands: what is on the disk is whole at any moment
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAYING = threading.Lock()  # taken for good by who says the line: the run that unwinds, or the watch


class Interrupted(KeyboardInterrupt):
    """A signal that asks the process to end."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def status_of(error: KeyboardInterrupt) -> int:
    """The exit status that shells give to a program that a signal ended."""
    return 128 + getattr(error, "number", signal.SIGINT)


def may_say(error: KeyboardInterrupt) -> bool:
    """Whether the line is still to be said; where the watch was first, it ends the process."""
    return not isinstance(error, Interrupted) or _SAYING.acquire(blocking=False)


@contextmanager
def caught(said: str) -> Iterator[None]:
    """Context: the first SIGINT or SIGTERM raises Interrupted, once; later ones change nothing.

    Python raises between two of its own steps alone, and a compilation is one step: where the block has not ended GRACE
    seconds after the signal, a watch of its own says the line `said` and ends the process. Outside the main thread, and
    where the caller handles the signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread() or not _are_free():
        yield
        return
    watched, told = socket.socketpair()
    told.setblocking(False)
    over = threading.Event()
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    handlers = [signal.signal(number, _raise_once) for number in SIGNALS]
    threading.Thread(target=_watch, args=(watched, over, said), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        if signal.getsignal(signal.SIGINT) is _raise_once:  # nothing came
            for number, handler in zip(SIGNALS, handlers, strict=True):
                signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        told.close()


def _are_free() -> bool:
    return [signal.getsignal(number) for number in SIGNALS] == [signal.default_int_handler, signal.SIG_DFL]


def _raise_once(number: int, frame: FrameType | None) -> NoReturn:
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    atexit.register(_leave, 128 + number)  # before all others: taking Python down crashes threads of libraries
    raise Interrupted(number)


def _watch(watched: socket.socket, over: threading.Event, said: str) -> None:
    with watched:
        while numbers := watched.recv(1):
            if numbers[0] in SIGNALS:
                break
    if not numbers:
        return
    if not over.wait(GRACE) and _SAYING.acquire(blocking=False):
        print(said, file=sys.stderr, flush=True)
    else:
        time.sleep(GRACE)  # more than enough to leave
    _leave(128 + numbers[0])


def _leave(status: int) -> NoReturn:
    """End this process and those it started, now."""
    import multiprocessing

    with suppress(Exception):
        for child in multiprocessing.active_children():
            child.kill()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
