"""Run a dense network over the overlapping windows of an image and average what it says of each pixel.

The windows of an image of any size go through one program of one shape, in batches. The sums over windows stay on the
device and are changed in place until the averaged maps are turned into what the caller wants. Their sizes are few, so
that a folder of pictures, each of another size, needs a handful of programs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quantjax.checks import check_interval, check_shape
from quantjax.parallel import (
    data_parallel,
    device_count,
    on_its_device,
    process_share,
    replicate,
    sum_of_processes,
    upload,
)
from quantjax.types import Array, PyTree

# Batches that may be on their way: the device never waits for the host, and memory stays that of a few batches of maps.
IN_FLIGHT = 2
SIZES_PER_OCTAVE = 4  # of the sums; a finer grid fills up less and compiles more


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
    pixelwise: bool = True,
    devices: Sequence[Any] | None = None,
) -> Callable[..., PyTree]:
    """Make `run(*shared, image)`, which returns finish(averaged maps of the image) as NumPy arrays.

    fn(*shared, windows [B, h, w, C]) -> pytree of maps [B, h, w, C_i] at window resolution must treat each window by
    itself. A pixel's value is the mean over the windows that cover it, in float32, equal weights; finish maps the
    pytree of [H, W, C_i] to any pytree of [H, W, ...] (non-linear scores belong there: their mean over windows is
    another number). With pixelwise=True it must treat each pixel by itself; a finish that blurs needs False.

    `window` and `stride` are (height, width) in pixels. An image [H, W, C] smaller than the window is filled up with
    zeros at its bottom and right, and its maps are cut back. `batch_size` is the number of windows over all devices,
    rounded up to a multiple of their number; the last batch is filled up with repetitions of weight 0. The first
    `shared` arguments (weights, say) go to every device whole.

    `run` compiles fn once, whatever the image sizes, and the summing and finish once per size of the sums: sides grow
    by at most a quarter from one to the next. Only a finish with pixelwise=False is compiled for every image size, as
    it must not see what lies beyond the image. Accelerators sum their own windows; cores that stand for devices share
    one memory and one set of sums. With several hosts every process calls run with the same image, and the windows are
    dealt out among them.
    Raises ValueError for a stride that leaves gaps, an image of another rank or without pixels, and maps or results
    of another size than the window or the image.
    """
    for side, step in zip(window, stride, strict=True):
        starts(side, side, step)
    check_interval("batch_size", batch_size, 1, float("inf"))
    count = device_count(devices)
    here = list(jax.local_devices() if devices is None else devices)
    adders = here if here[0].platform != "cpu" else here[:1] * len(here)
    size = -(-batch_size // count) * count
    network = data_parallel(_independent(fn), (*(None,) * shared, 0), 0, devices=devices)
    begin = on_its_device(_zeros, static_argnums=(2,))
    add = on_its_device(_add, donate_argnums=(0,))
    average = on_its_device(partial(_average, finish), static_argnums=(2,))

    def run(*args: PyTree) -> PyTree:
        *whole, image = args
        image = np.asarray(image)
        check_shape("image", image, "[H, W, C]")
        if not image.size:
            raise ValueError(f"image must have at least one pixel, got shape {list(image.shape)}")
        whole = replicate(whole, devices)
        canvas = _fill_up(image, window)
        extent = tuple(_roomy(*sides) for sides in zip(canvas.shape, window, strict=False))
        sums: dict[Any, PyTree] = {}
        waiting = deque[Array]()
        for batch in _batches(canvas, window, stride, size):
            windows, corners, weights = (process_share(array, 0) for array in batch)
            maps = network(*whole, upload(windows, devices))
            _check_maps(maps, (len(windows), *window))
            for device, share, *places in _shares(maps, corners, weights, adders):
                if device not in sums:
                    sums[device] = begin(share, places[1], extent)
                sums[device], done = add(sums[device], share, *places)
                waiting.append(done)
            while len(waiting) > IN_FLIGHT * len(here):
                jax.block_until_ready(waiting.popleft())
        total = _together(list(sums.values()), here[0])
        hits = _hits_of(canvas.shape, window, stride, extent)
        seen = extent if pixelwise else image.shape[:2]
        results = jax.device_get(average(total, upload(hits, here[:1]), seen))
        return jax.tree.map(partial(_cut, image.shape, seen), results)

    return run


def _independent(fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
    def call(*args: Any, axis_name: str | None = None) -> PyTree:
        del axis_name  # windows are independent: nothing to reduce
        return fn(*args)

    return call


def _roomy(length: int, window: int) -> int:
    """The least side of sums, of few, that holds `length` pixels: a quarter of the octave of windows apart."""
    step = window * 2.0 ** math.floor(math.log2(length / window)) / SIZES_PER_OCTAVE
    return math.ceil(math.ceil(length / step) * step)


def _zeros(maps: PyTree, weights: Array, extent: tuple[int, ...]) -> PyTree:
    """Empty sums [H, W, C_i]; only the channels of the maps count. Made of a weight, they lie where the weights do."""
    return jax.tree.map(lambda m: jnp.full((*extent, m.shape[-1]), 0.0 * weights[0], jnp.float32), maps)


def _shares(maps: PyTree, corners: np.ndarray, weights: np.ndarray, adders: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """(device that adds, maps, corners, weights) of each device's windows."""
    leaves, structure = jax.tree.flatten(maps)
    parts = [sorted(leaf.addressable_shards, key=lambda shard: shard.index[0].start or 0) for leaf in leaves]
    rows = len(weights) // len(adders)
    for i, adder in enumerate(adders):
        own = slice(i * rows, (i + 1) * rows)
        share = jax.tree.unflatten(structure, [part[i].data for part in parts])
        yield (adder, *jax.device_put((share, corners[own], weights[own]), adder))


def _add(sums: PyTree, maps: PyTree, corners: Array, weights: Array) -> tuple[PyTree, Array]:
    """Add each window's maps, times its weight, at its corner; the second result only tells when that is done."""

    def add_one(i: Array, sums: PyTree) -> PyTree:
        def into(total: Array, values: Array) -> Array:
            at = (corners[i, 0], corners[i, 1], 0)
            share = weights[i] * values[i].astype(jnp.float32)
            return jax.lax.dynamic_update_slice(total, jax.lax.dynamic_slice(total, at, share.shape) + share, at)

        return jax.tree.map(into, sums, maps)

    sums = jax.lax.fori_loop(0, len(weights), add_one, sums)
    return sums, jax.tree.leaves(sums)[0][0, 0, 0]


def _together(sums: list[PyTree], device: Any) -> PyTree:
    """The sums of all devices of all processes, on one device."""
    total, *others = (jax.device_put(part, device) for part in sums)
    for other in others:
        total = jax.tree.map(jnp.add, total, other)
    return sum_of_processes(total)


def _average(finish: Callable[[PyTree], PyTree], sums: PyTree, hits: Array, shape: tuple[int, ...]) -> PyTree:
    own = (slice(shape[0]), slice(shape[1]))
    return finish(jax.tree.map(lambda total: total[own] / hits[own][..., None], sums))


def _cut(shape: tuple[int, ...], extent: tuple[int, ...], result: np.ndarray) -> np.ndarray:
    """A result at the size of the image; it may not keep alive the memory beyond."""
    if result.shape[:2] != extent:
        raise ValueError(f"finish must return maps of shape [H, W, ...] for maps [H, W, C_i], got {list(result.shape)}")
    return np.ascontiguousarray(result[: shape[0], : shape[1]])


def _fill_up(image: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    missing = [(0, max(side - length, 0)) for side, length in zip(window, image.shape, strict=False)]
    return np.pad(image, [*missing, (0, 0)])


def _hits_of(
    shape: tuple[int, ...], window: tuple[int, int], stride: tuple[int, int], extent: tuple[int, ...]
) -> np.ndarray:
    """[H, W] float32: how many windows cover each pixel, 1 where the sums reach beyond the image.

    Windows form a grid, so the number is that of a pixel's row times that of its column.
    """
    rows, columns = (_hits(*lengths) for lengths in zip(shape, window, stride, extent, strict=False))
    return rows[:, None] * columns[None, :]


def _hits(length: int, window: int, stride: int, extent: int) -> np.ndarray:
    hits = np.zeros(extent, np.float32)
    for start in starts(length, window, stride):
        hits[start : start + window] += 1
    return np.maximum(hits, 1)


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
