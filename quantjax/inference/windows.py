"""Run a dense network over the overlapping windows of an image and average what it says of each pixel.

The windows of an image of any size go through one program of one shape, in batches. The sums over windows stay on the
device, each device keeping its own, until the averaged maps are turned into what the caller wants.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quantjax.checks import check_interval, check_shape
from quantjax.parallel import data_parallel, device_count, process_share, replicate, upload
from quantjax.types import Array, PyTree

# Batches that may be on their way: the device never waits for the host, and memory stays that of a few batches of maps.
IN_FLIGHT = 2


def starts(length: int, window: int, stride: int) -> list[int]:
    """Return where the windows along an axis begin: every `stride` pixels, and the last one at length - window.

    So every pixel is covered, also where stride divides length - window. An axis no longer than the window has one
    window at 0. Raises ValueError for a window under 1 and for a stride outside 1..window, which would leave gaps.
    """
    check_interval("window", window, 1, float("inf"))
    check_interval("stride", stride, 1, window)
    return [*range(0, length - window, stride), max(length - window, 0)]


def sliding(
    fn: Callable[..., PyTree],
    finish: Callable[[PyTree], PyTree],
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    batch_size: int,
    shared: int = 1,
    devices: Sequence[Any] | None = None,
) -> Callable[..., PyTree]:
    """Make `run(*shared, image)`, which returns finish(averaged maps of the image) as NumPy arrays.

    fn(*shared, windows [B, h, w, C]) -> pytree of maps [B, h, w, C_i] at window resolution must treat each window by
    itself. A pixel's value is the mean over the windows that cover it, in float32, equal weights; finish maps the
    pytree of [H, W, C_i] to any pytree (non-linear scores belong there: their mean over windows is another number).

    `window` and `stride` are (height, width) in pixels. An image [H, W, C] smaller than the window is filled up with
    zeros at its bottom and right, and its maps are cut back. `batch_size` is the number of windows over all devices,
    rounded up to a multiple of their number; the last batch is filled up with repetitions of weight 0. The first
    `shared` arguments (weights, say) go to every device whole.

    `run` compiles fn once, whatever the image sizes, and the summing and finish once per image size. With several
    hosts every process calls run with the same image, and the windows are dealt out among them.
    Raises ValueError for a stride that leaves gaps, an image of another rank or without pixels, and maps of another
    size than the window.
    """
    for side, step in zip(window, stride, strict=True):
        starts(side, side, step)
    check_interval("batch_size", batch_size, 1, float("inf"))
    count = device_count(devices)
    local = len(devices) if devices is not None else jax.local_device_count()
    size = -(-batch_size // count) * count
    network = data_parallel(_independent(fn), (*(None,) * shared, 0), 0, devices=devices)
    begin = data_parallel(_zeros, (0, None, None), 0, devices=devices)
    add = data_parallel(_add, (0, 0, 0, 0), (0, 0), donate_argnums=(0,), devices=devices)
    blend = data_parallel(_blend(finish), (0, None, None), None, devices=devices)

    def run(*args: PyTree) -> PyTree:
        *whole, image = args
        image = np.asarray(image)
        check_shape("image", image, "[H, W, C]")
        if not image.size:
            raise ValueError(f"image must have at least one pixel, got shape {list(image.shape)}")
        whole = replicate(whole, devices)
        canvas = _fill_up(image, window)
        hits = [_hits(*lengths) for lengths in zip(canvas.shape, window, stride, strict=False)]
        placed = replicate(hits, devices)
        sums, waiting = None, deque[Array]()
        for batch in _batches(canvas, window, stride, size):
            windows, corners, weights = (upload(process_share(array, 0), devices) for array in batch)
            maps = network(*whole, windows)
            _check_maps(maps, (local * (size // count), *window))
            sums = begin(maps, *placed) if sums is None else sums
            sums, done = add(sums, maps, corners, weights)
            waiting.append(done)
            if len(waiting) > IN_FLIGHT:
                jax.block_until_ready(waiting.popleft())
        own = [axis[:length] for axis, length in zip(hits, image.shape, strict=False)]
        return jax.device_get(blend(sums, *replicate(own, devices)))

    return run


def _independent(fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
    def call(*args: Any, axis_name: str | None = None) -> PyTree:
        del axis_name  # windows are independent: nothing to reduce
        return fn(*args)

    return call


def _zeros(maps: PyTree, rows: Array, columns: Array, axis_name: str | None = None) -> PyTree:
    """This device's empty sums [1, H, W, C_i]; only the shapes of the arguments count."""
    del axis_name
    return jax.tree.map(lambda m: jnp.zeros((1, len(rows), len(columns), m.shape[-1]), jnp.float32), maps)


def _add(
    sums: PyTree, maps: PyTree, corners: Array, weights: Array, axis_name: str | None = None
) -> tuple[PyTree, Array]:
    """Add each window's maps, times its weight, at its corner; the second result [1] only tells when that is done."""
    del axis_name

    def add_one(i: Array, sums: PyTree) -> PyTree:
        def into(total: Array, values: Array) -> Array:
            at = (0, corners[i, 0], corners[i, 1], 0)
            share = weights[i] * values[i].astype(jnp.float32)[None]
            return jax.lax.dynamic_update_slice(total, jax.lax.dynamic_slice(total, at, share.shape) + share, at)

        return jax.tree.map(into, sums, maps)

    sums = jax.lax.fori_loop(0, len(weights), add_one, sums)
    return sums, jax.tree.leaves(sums)[0][:, 0, 0, 0]


def _blend(finish: Callable[[PyTree], PyTree]) -> Callable[..., PyTree]:
    def call(sums: PyTree, rows: Array, columns: Array, axis_name: str | None = None) -> PyTree:
        """rows [H] and columns [W] hold how many windows cover them, for the pixels of the image alone."""
        hits = (rows[:, None] * columns[None, :])[..., None]

        def mean(total: Array) -> Array:
            own = total[0, : len(rows), : len(columns)]
            return (own if axis_name is None else jax.lax.psum(own, axis_name)) / hits

        return finish(jax.tree.map(mean, sums))

    return call


def _fill_up(image: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    missing = [(0, max(side - length, 0)) for side, length in zip(window, image.shape, strict=False)]
    return np.pad(image, [*missing, (0, 0)])


def _hits(length: int, window: int, stride: int) -> np.ndarray:
    """How many windows cover each pixel of an axis; windows form a grid, so a pixel's number is a product."""
    hits = np.zeros(length, np.float32)
    for start in starts(length, window, stride):
        hits[start : start + window] += 1
    return hits


def _batches(
    canvas: np.ndarray, window: tuple[int, int], stride: tuple[int, int], size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Windows [size, h, w, C], their corners [size, 2] and weights [size], the last batch filled up."""
    grid = product(*(starts(*lengths) for lengths in zip(canvas.shape, window, stride, strict=False)))
    corners = np.array(list(grid), np.int32)
    for first in range(0, len(corners), size):
        here = corners[first : first + size]
        weights = (np.arange(size) < len(here)).astype(np.float32)
        here = np.concatenate([here, np.repeat(here[-1:], size - len(here), axis=0)])
        yield np.stack([canvas[y : y + window[0], x : x + window[1]] for y, x in here]), here, weights


def _check_maps(maps: PyTree, wanted: tuple[int, ...]) -> None:
    for leaf in jax.tree.leaves(maps):
        if leaf.ndim != 4 or leaf.shape[:3] != wanted:
            raise ValueError(
                f"fn must return maps of shape [B, h, w, C] at window resolution, {list(wanted)} and channels here, "
                f"got {list(leaf.shape)}; resize them inside fn"
            )
