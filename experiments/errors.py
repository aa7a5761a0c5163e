"""What goes wrong in a command, as one line and an exit status: the same for every command."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

from experiments import hosts
from experiments.interrupts import caught, may_say, status_of

STOPPED = "\nstopped; the same command with --resume continues"


def report_errors(
    run: Callable[[], int], sizes: str, *, debug: bool = False, failed: int = 1, stopped: str = STOPPED
) -> int:
    """run() with what went wrong as one line and an exit status; `sizes` are the flags to lower when memory is full.

    The status is `failed`, 130 after Ctrl-C and 143 after SIGTERM, of which `stopped` is said. With debug the error
    comes through with its traceback. Of several processes the first that fails ends all.
    """
    from experiments.run_folder import release

    shown, absl = warnings.formatwarning, logging.getLogger("absl")
    level = absl.level
    try:
        warnings.formatwarning = _warning_line
        if not debug:
            absl.setLevel(logging.CRITICAL)  # Orbax's threads print what they raise, too
        with caught(stopped):
            status = run() if debug else _in_one_line(run, sizes, failed, stopped)
        hosts.part()
        return status
    except BaseException as error:
        hosts.crash(error)
        raise
    finally:
        warnings.formatwarning = shown
        absl.setLevel(level)
        release()


def _warning_line(message: Warning | str, *about: Any, **more: Any) -> str:
    return f"warning: {message}\n"


def _in_one_line(run: Callable[[], int], sizes: str, failed: int, stopped: str) -> int:
    try:
        return run()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        return hosts.give_up(f"error: {error}", failed)
    except (MemoryError, RuntimeError) as error:  # what JAX raises when a device is missing or its memory is full
        hosts.wait_for_news()
        remedy = f"lower {sizes} if memory ran out, check JAX_PLATFORMS if a device is missing"
        shown = str(error).splitlines()[0] if str(error) else type(error).__name__
        return hosts.give_up(f"error: {shown}; {remedy}", failed)
    except KeyboardInterrupt as interrupt:
        return hosts.give_up(stopped, status_of(interrupt)) if may_say(interrupt) else status_of(interrupt)
