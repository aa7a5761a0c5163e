"""Where the time goes: the longest kernels of one profile of each hot function."""

from __future__ import annotations

import collections
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.programs import Program, compile_program, first_line
from benchmarks.questions.context import Context
from benchmarks.questions.hot import HOT
from benchmarks.questions.sizes import Sizes

LONGEST = 5


def profiles(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """One row a hot function; one that fails leaves its error."""
    for name, build in itertools.islice(HOT.items(), sizes.profiles):
        if context.expired():
            return
        try:
            hot = build(sizes)
            program = compile_program(hot.function, *hot.arguments(), precision=hot.precision, carry=bool(hot.donated))
            yield {"profile_of": name, **kernels(program)}
        except Exception as error:
            yield {"profile_of": name, "profile_error": f"{type(error).__name__}: {first_line(error)}"}


def kernels(program: Program) -> dict[str, Any]:
    """Milliseconds of the kernels of one call, all and the longest five with their names, counts and shares."""
    import jax

    program.call()
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            program.call()
        traces = sorted(Path(folder).rglob("*.xplane.pb"))
        times = _durations(traces[-1]) if traces else {}
    total = sum(sum(durations) for durations in times.values())
    longest = sorted(times, key=lambda name: -sum(times[name]))[:LONGEST]
    return {
        "kernel_milliseconds": round(total / 1e6, 4),
        "longest": [
            f"{100 * sum(times[name]) / total:.1f} % in {len(times[name])} calls: {name[:120]}" for name in longest
        ],
    }


def _durations(trace: Path) -> dict[str, list[float]]:
    """Kernel -> nanoseconds of every run of it: of the device's streams, of a CPU what its threads say."""
    import jax

    planes = list(jax.profiler.ProfileData.from_file(str(trace)).planes)
    on_device = [line for plane in planes if plane.name.startswith("/device:") for line in plane.lines]
    streams = [line for line in on_device if line.name.startswith("Stream")] or [
        line for line in on_device if line.name == "XLA Ops"
    ]
    lines = streams or [line for plane in planes if plane.name.startswith("/host:CPU") for line in plane.lines]
    times: dict[str, list[float]] = collections.defaultdict(list)
    for line in lines:
        for event in line.events:
            if streams or (event.duration_ns and "hlo_op" in dict(event.stats) and not _contains(event.name)):
                times[event.name].append(event.duration_ns)
    return times


def _contains(name: str) -> bool:
    """Whether an operation of a CPU is made of others, which are listed too."""
    return name.partition(".")[0] in ("while", "call", "conditional")
