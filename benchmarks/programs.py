"""Compiled programs, ours and PyTorch's, and the row that comes of timing them in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks import counting
from benchmarks.ceilings import matmul_precision, roofline
from benchmarks.questions.context import Context, Overtime
from benchmarks.timing import alternate


class Program(NamedTuple):
    """A compiled program on arguments that lie on its device."""

    call: Callable[[], Any]  # returns the results once they are there
    compile_seconds: float
    facts: dict[str, Any]  # gflop, megabytes, memory of ours; mode of a peer
    compiled: Any = None  # jax.stages.Compiled of ours


class Peer(NamedTuple):
    """A program to compare with: its name, and what builds it when its turn comes."""

    name: str
    build: Callable[[], Program]
    amount: float | None = None  # what one call does, where it is not what ours does; its seconds are scaled to ours


def compile_program(
    function: Callable[..., Any],
    *args: Any,
    precision: str = "float32",
    carry: bool = False,
    work: counting.Work | None = None,
) -> Program:
    """Compile function(*args) for the default device, put args there, and count what it asks for.

    carry: the first result replaces the first argument in the next call, whose buffers it takes over. work: where
    counting.work misses what counts, such as the state that an optimiser reads and writes.
    """
    import jax
    import jax.numpy as jnp

    first = jax.tree.map(jnp.array, args[0]) if carry else args[0]  # a copy, as its buffers are given up
    placed = jax.device_put((first, *args[1:]))
    with jax.default_matmul_precision(matmul_precision(precision)):
        start = time.perf_counter()
        run = jax.jit(function, donate_argnums=0 if carry else ()).lower(*placed).compile()
        seconds = time.perf_counter() - start
        platform = "cuda" if jax.default_backend() == "gpu" else None
        counted = work or counting.work(function, *placed, platform=platform)
    facts = {"gflop": round(counted.flops / 1e9, 4), "megabytes": round(counted.bytes / 1e6, 3)}
    if precision != "float32":
        facts["gflop_float32"] = round(counted.exact / 1e9, 4)
    held = list(placed)

    def call() -> Any:
        result = jax.block_until_ready(run(*held))
        if carry:
            held[0] = result[0]
        return result

    return Program(call, seconds, facts | memory(run), run)


def memory(compiled: Any) -> dict[str, float]:
    """Megabytes that XLA plans for a compiled program: its arguments and results, and what it needs beside them."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return {}
    sizes = {name: getattr(analysis, f"{name}_size_in_bytes") for name in ("argument", "output", "temp")}
    return {f"{name}_megabytes": round(size / 1e6, 2) for name, size in sizes.items()}


def torch_compiled(function: Any, mode: str | None) -> Any:
    """A function or module of torch, compiled in that mode; as it is where the mode is None."""
    import torch

    return torch.compile(function, mode=mode) if mode else function


def torch_device() -> str:
    """Where peers run."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_program(
    function: Callable[..., Any], *args: Any, context: Context, mode: str | None, grad: bool = False
) -> Program:
    """function(*args) in torch; the first calls count as compilation.

    mode: how what is compiled in it was compiled, which the row says. grad: it differentiates, so that stays possible.
    Raises Overtime when the first calls take longer than a peer may compile.
    """
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_available() else _nothing

    def call() -> Any:
        with torch.enable_grad() if grad else torch.no_grad():
            result = function(*args)
        wait()
        return result

    start = time.perf_counter()
    with context.limit(context.peer_seconds):
        call()
        call()  # the second call records CUDA graphs
    return Program(call, time.perf_counter() - start, {"peer_mode": mode or "eager"})


def _nothing() -> None:
    return None


def compare(
    context: Context, ours: Program, peers: list[Peer], *, amount: float, unit: str, precision: str, **about: Any
) -> Iterator[dict[str, Any]]:
    """One row for ours, and one for every peer, timed in turns with it; `amount` of `unit` are done in one call.

    Speeds are named after the unit, as in images_per_second. about: further entries of every row. A peer that cannot
    be built leaves its reason in place of its figures. `ratio` is the peer's time over ours, for equal amounts.
    """
    row = {"precision": precision, unit: amount, **about, "compile_seconds": round(ours.compile_seconds, 2)}
    row |= ours.facts
    for turn, peer in enumerate(peers or [None]):
        if turn and context.expired():
            return
        yield row | _against(context, ours, peer, amount, unit, precision)


def _against(context: Context, ours: Program, peer: Peer | None, amount: float, unit: str, precision: str) -> dict:
    theirs, reason = _built(peer, context)
    calls = {"ours": ours.call} | ({"peer": theirs.call} if theirs else {})
    medians = alternate(calls, context.repeats, context.soft_end)
    seconds = medians["ours"][0] / 1e3
    row: dict[str, Any] = {"seconds": seconds, f"{unit}_per_second": round(amount / seconds, 3)}
    gflop, megabytes, exact = (ours.facts.get(key, 0.0) for key in ("gflop", "megabytes", "gflop_float32"))
    if gflop or megabytes:
        row |= roofline(seconds, gflop, megabytes, precision, context.ceilings, exact)
    row |= device_memory()
    if theirs and peer:
        peer_seconds = medians["peer"][0] / 1e3 * (amount / (peer.amount or amount))
        row |= {"peer": peer.name, "peer_seconds": peer_seconds, "ratio": round(peer_seconds / seconds, 3)}
        row |= {"peer_compile_seconds": round(theirs.compile_seconds, 2), **theirs.facts}
    return row | reason


def _built(peer: Peer | None, context: Context) -> tuple[Program | None, dict[str, Any]]:
    if peer is None:
        return None, {}
    try:
        return peer.build(), {}
    except ImportError as error:
        return None, {"peer": peer.name, "peer_missing": error.name or str(error)}
    except Overtime as error:
        return None, {"peer": peer.name, "peer_missing": str(error)}
    except Exception as error:  # a peer that fails is no reason to lose our own figure
        return None, {"peer": peer.name, "peer_error": f"{type(error).__name__}: {first_line(error)}"}


def first_line(error: BaseException) -> str:
    """The first line of what an exception says."""
    return (str(error).strip().splitlines() or [""])[0][:300]


def device_memory() -> dict[str, float]:
    """The most that JAX held on the device since the process began, in megabytes, where the device says so."""
    import jax

    statistics = jax.devices()[0].memory_stats() or {}
    peak = statistics.get("peak_bytes_in_use")
    return {} if peak is None else {"peak_megabytes_so_far": round(peak / 1e6, 1)}


def difference(found: Any, wanted: Any) -> float:
    """The largest deviation, against the largest entry of what is wanted."""
    import numpy as np

    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30))
