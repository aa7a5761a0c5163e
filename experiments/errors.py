"""What goes wrong in a run, as one line and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable


def report_errors(run: Callable[[], int], sizes: str, *, debug: bool = False) -> int:
    """run() with what went wrong as one line and an exit status; `sizes` are the flags to lower when memory is full.

    With debug the error comes through with its traceback.
    """
    from experiments.run_folder import release

    try:
        return _in_one_line(run, sizes) if not debug else run()
    finally:
        release()


def _in_one_line(run: Callable[[], int], sizes: str) -> int:
    try:
        return run()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:  # what JAX raises when a device is missing or its memory is full
        remedy = f"lower {sizes} if memory ran out, check JAX_PLATFORMS if a device is missing"
        print(f"error: {str(error).splitlines()[0] if str(error) else type(error).__name__}; {remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command with --resume continues", file=sys.stderr)
        return 130
