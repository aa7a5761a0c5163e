"""What goes wrong in a run, as one line and an exit status."""

from __future__ import annotations

from collections.abc import Callable

from experiments import hosts


def report_errors(run: Callable[[], int], sizes: str, *, debug: bool = False) -> int:
    """run() with what went wrong as one line and an exit status; `sizes` are the flags to lower when memory is full.

    With debug the error comes through with its traceback. Of several processes the first that fails ends all.
    """
    from experiments.run_folder import release

    try:
        status = _in_one_line(run, sizes) if not debug else run()
        hosts.part()
        return status
    except BaseException as error:
        hosts.crash(error)
        raise
    finally:
        release()


def _in_one_line(run: Callable[[], int], sizes: str) -> int:
    try:
        return run()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        return hosts.give_up(f"error: {error}", 1)
    except (MemoryError, RuntimeError) as error:  # what JAX raises when a device is missing or its memory is full
        hosts.wait_for_news()
        remedy = f"lower {sizes} if memory ran out, check JAX_PLATFORMS if a device is missing"
        shown = str(error).splitlines()[0] if str(error) else type(error).__name__
        return hosts.give_up(f"error: {shown}; {remedy}", 1)
    except KeyboardInterrupt:
        return hosts.give_up("\nstopped; the same command with --resume continues", 130)
