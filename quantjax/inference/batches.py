"""Run a pure function over a whole data set in padded batches of one size: one compilation whatever N."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from quantjax.checks import check_interval
from quantjax.parallel import data_parallel, device_count, process_share, replicate, upload
from quantjax.types import PyTree

Report = Callable[[int, int], None]

# Batches that may be on their way before the oldest result is read: the device never waits for the host, and memory
# stays that of a few batches.
IN_FLIGHT = 4
BUCKETS = (1, 16)  # one request, a handful of them


def batched(
    fn: Callable[..., PyTree], *, batch_size: int, shared: int = 0, devices: Sequence[Any] | None = None
) -> Callable[..., PyTree]:
    """Make `run(*shared, arrays, report=None)`, which maps fn over the rows of `arrays` and returns NumPy arrays.

    fn(*shared, batch) -> pytree of [B, ...] must treat each row by itself; `batch` has the structure of `arrays`, a
    pytree of [N, ...] arrays, or of what has shape and dtype and gives an array for a slice of rows, one after the
    other. The first `shared` arguments (weights, say) go to every batch whole; give weights this
    way rather than by closure, so that they are no constants of the compiled program. `batch_size` is the number of
    rows over all `devices` (default: all local ones), rounded up to a multiple of their number. The last batch is
    filled up with repetitions of its last row, whose results are dropped.

    With several hosts every process calls run with the same rows, works on its share of each batch, and gets all
    results.

    `run` compiles at its first call and again only for other row shapes or dtypes: `run(*shared, first_rows)` is a
    warm-up. It calls `report(done, total)`, in rows, when a batch's results have arrived. It raises ValueError when
    there is no array or when arrays differ in length.
    """
    check_interval("batch_size", batch_size, 1, float("inf"))
    count = device_count(devices)
    size = -(-batch_size // count) * count
    hosts = jax.process_count()

    def call(*args: Any, axis_name: str | None = None) -> PyTree:
        result = fn(*args)  # rows are independent: nothing to reduce
        if hosts == 1:
            return result
        return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, axis_name, tiled=True), result)

    step = data_parallel(call, (*(None,) * shared, 0), 0 if hosts == 1 else None, devices=devices)

    def run(*args: PyTree, report: Report | None = None) -> PyTree:
        *whole, arrays = args
        arrays = jax.tree.map(_sliced, arrays)
        total = _length(arrays)
        if not total:
            return _no_rows(fn, whole, arrays)
        whole = _on_devices(whole, devices, count)
        results: list[PyTree] = []
        waiting: deque[tuple[PyTree, int]] = deque()

        def fetch() -> None:
            result, rows = waiting.popleft()
            results.append(jax.tree.map(lambda leaf: leaf[:rows], jax.device_get(result)))
            if report is not None:
                report(min(len(results) * size, total), total)

        for batch, rows in _padded(arrays, total, size):
            share = jax.tree.map(lambda array: process_share(array, 0), batch)
            result = step(*whole, upload(share, devices))
            jax.tree.map(lambda leaf: leaf.copy_to_host_async(), result)
            waiting.append((result, rows))
            if len(waiting) > IN_FLIGHT:
                fetch()
        while waiting:
            fetch()
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)

    return run


def bucketed(
    fn: Callable[..., PyTree], *, batch_size: int, shared: int = 0, devices: Sequence[Any] | None = None
) -> Callable[..., PyTree]:
    """`batched` for calls of any size, one row as well: few rows fill the smallest of BUCKETS that holds them.

    Each bucket compiles at the first call that it serves; more rows than the last bucket go in batches of batch_size.
    """
    sizes = [*(size for size in BUCKETS if size < batch_size), batch_size]
    runs = {size: batched(fn, batch_size=size, shared=shared, devices=devices) for size in sizes}

    def run(*args: PyTree, report: Report | None = None) -> PyTree:
        rows = _length(jax.tree.map(_sliced, args[-1]))
        return runs[next((size for size in sizes if size >= rows), batch_size)](*args, report=report)

    return run


def map_batches(
    fn: Callable[[PyTree], PyTree],
    arrays: PyTree,
    *,
    batch_size: int,
    report: Report | None = None,
    devices: Sequence[Any] | None = None,
) -> PyTree:
    """fn(batch) over all rows of `arrays`, a pytree of [N, ...] -> pytree of NumPy [N, ...]; see `batched`.

    Every call compiles anew: for several data sets make one `batched` function.
    """
    return batched(fn, batch_size=batch_size, devices=devices)(arrays, report=report)


def _sliced(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "ndim") and not isinstance(leaf, jax.Array) else np.asarray(leaf)


def _on_devices(whole: list[PyTree], devices: Sequence[Any] | None, count: int) -> list[PyTree]:
    there = count == 1 and devices is None and all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(whole))
    return whole if there else replicate(whole, devices)


def _length(arrays: PyTree) -> int:
    leaves = jax.tree.leaves(arrays)
    if not leaves or any(not leaf.ndim or len(leaf) != len(leaves[0]) for leaf in leaves):
        raise ValueError(f"arrays must share one leading axis of rows, got shapes {[list(a.shape) for a in leaves]}")
    return len(leaves[0])


def _padded(arrays: PyTree, total: int, size: int) -> Iterator[tuple[PyTree, int]]:
    for start in range(0, total, size):
        rows = min(size, total - start)
        yield jax.tree.map(lambda a, start=start, rows=rows: _fill(a[start : start + rows], size), arrays), rows


def _fill(rows: np.ndarray, size: int) -> np.ndarray:
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def _no_rows(fn: Callable[..., PyTree], whole: Sequence[PyTree], arrays: PyTree) -> PyTree:
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), arrays)
    return jax.tree.map(lambda s: np.zeros((0, *s.shape[1:]), s.dtype), jax.eval_shape(fn, *whole, one))
