"""Endless training batches of cropped scenes, with or without pasted objects, decoded ahead by threads or processes.

Everything about row r of the run is a function of (seed, r): which scene, which object, where it is pasted, which crop.
So a run that resumes at step s reads the same batches as one that never stopped, with any number of workers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np

from quantjax.checks import check_interval
from quantjax.data.cutouts import Objects
from quantjax.data.mix import Share, check_not_empty, check_some_fit, paste
from quantjax.data.pairs import Scenes, resize_box
from quantjax.machine import cores
from quantjax.rows import IGNORED, SceneRow

Batch = dict[str, np.ndarray]  # image uint8 [B, h, w, 3], label uint8 [B, h, w]
Crop = tuple[int, int]
Scale = tuple[float, float]


def training_batches(
    scenes: Scenes,
    objects: Objects | None,
    *,
    crop: Crop,
    batch_size: int,
    seed: int | Sequence[int],
    probability: float = 1.0,
    scale: Scale = (0.5, 2.0),
    share: Share | None = None,
    workers: int = 0,
    process: tuple[int, int] = (0, 1),
) -> Callable[[int], Iterator[Batch]]:
    """Return batches(first_step) -> endless iterator of {"image": uint8 [B, h, w, 3], "label": uint8 [B, h, w]}.

    Each epoch visits every scene once, in an order of its own. An object is pasted with `probability` (label 254, see
    `mix.paste`), then the scene is resized by a random factor from `scale` and cropped at random to `crop` (h, w);
    a scene smaller than that is centred on black with label 255.

    Args:
        scenes, objects: random-access sources; wrap small ones in `resident` to decode them once. No objects, no mix.
        seed: one number, or several: (seed, stage) gives each stage of a run draws of its own.
        share: size of pasted objects, as in `mix.paste`; None keeps it.
        workers: processes that prepare batches ahead (they are spawned, so the calling script needs the usual
            `if __name__ == "__main__"`); 0 uses threads of this process. The batches are the same.
        process: (index, count) where several hosts train together; each reads its part, `batch_size` rows, of every
            global batch.

    Raises:
        ValueError: no scene, no object, none of a few objects fits into the first scene, or a number out of range.
    """
    if batch_size < 1 or workers < 0:
        raise ValueError(f"batch_size must be at least 1 and workers at least 0, got {batch_size} and {workers}")
    rows = TrainingRows(scenes, objects, crop, seed, probability, scale, share)
    if objects is not None and share is None and probability > 0:
        check_some_fit(scenes, objects)

    index, count = process
    if not 0 <= index < count:
        raise ValueError(f"process must be (index, count) with 0 <= index < count, got {process}")

    def batches(first_step: int = 0) -> Iterator[Batch]:
        import grain

        data = grain.MapDataset.source(rows).slice(slice(first_step * batch_size * count, None)).batch(batch_size)
        return _prefetched(data[index::count], workers)

    return batches


def check_rows(source: Any, report: Callable[[int, int], None] | None = None) -> None:
    """Decode every row of a source once, in threads, and let it go; `report(done, N)` is called after each.

    What cannot be read is then an error before training and not in the middle of it. Raises as the source does.
    """
    import grain

    for i, _ in enumerate(_prefetched(grain.MapDataset.source(source), 0)):
        if report:
            report(i + 1, len(source))


def _prefetched(data: Any, workers: int) -> Iterator[Batch]:
    """Elements of a grain.MapDataset in order, prepared ahead; threads and processes end with the iterator."""
    import grain

    if workers:
        _allow_unparsed_flags()
        alone = data.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
        ahead = iter(alone.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)))
    else:
        ahead = iter(data.to_iter_dataset(grain.ReadOptions(num_threads=cores() + 1, prefetch_buffer_size=2 * cores())))
    try:
        yield from ahead
    finally:
        if hasattr(ahead, "close"):  # Grain 0.2.12 leaves it to the garbage collector
            ahead.close()


def _allow_unparsed_flags() -> None:
    """Grain reads absl flags when it starts processes, which fails in programs that are no absl application."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


class TrainingRows:
    """Rows 0, 1, 2 ... of a run without end, each prepared when asked for; see `training_batches`."""

    def __init__(
        self,
        scenes: Scenes,
        objects: Objects | None,
        crop: Crop,
        seed: int | Sequence[int],
        probability: float = 1.0,
        scale: Scale = (0.5, 2.0),
        share: Share | None = None,
    ):
        check_not_empty(scenes, objects)
        check_interval("probability", probability, 0.0, 1.0)
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale must be two factors with 0 < low <= high, got {scale}")
        if min(crop) < 1:
            raise ValueError(f"crop must be at least 1 x 1, got {crop[0]} x {crop[1]}")
        self.scenes, self.objects, self.crop = scenes, objects, crop
        self.seed = (seed,) if isinstance(seed, int) else tuple(seed)
        self.probability, self.scale, self.share = probability, scale, share
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        """Half as many as an index can count: Grain adds to it."""
        return sys.maxsize // 2

    def __getitem__(self, index: SupportsIndex) -> Batch:
        """Row `index`: image uint8 [h, w, 3] and label uint8 [h, w]."""
        i = index.__index__()
        epoch, position = divmod(i, len(self.scenes))
        scene = self.scenes[int(self._order_of(epoch)[position])]
        rng = np.random.default_rng([*self.seed, 1, i])
        if self.objects is not None and rng.random() < self.probability:
            scene = paste(scene, self.objects[int(rng.integers(len(self.objects)))], rng, share=self.share)
        image, label = scale_and_crop(scene, rng, self.crop, self.scale)
        return {"image": image, "label": label}

    def _order_of(self, epoch: int) -> np.ndarray:
        kept, order = self._order
        if kept != epoch:
            order = np.random.default_rng([*self.seed, 0, epoch]).permutation(len(self.scenes))
            self._order = (epoch, order)
        return order


def scale_and_crop(
    scene: SceneRow, rng: np.random.Generator, crop: Crop, scale: Scale
) -> tuple[np.ndarray, np.ndarray]:
    """Resize by a random factor, cut a random window: image uint8 [h, w, 3], label uint8 [h, w].

    Both in one resize of the part of the scene that the window shows. What the window shows beyond the scene, where
    the resized scene is smaller, is black and has label 255; the scene is centred then.
    """
    factor = rng.uniform(*scale)
    axes = [_window(length, factor, window, rng) for length, window in zip(scene["label"].shape, crop, strict=True)]
    (top, bottom, rows), (left, right, columns) = axes
    image, label = resize_box(scene["image"], scene["label"], (top, left, bottom, right), (rows, columns))
    if (rows, columns) == tuple(crop):
        return image, label
    padded, ignored = np.zeros((*crop, 3), np.uint8), np.full(crop, IGNORED, np.uint8)
    place = tuple(
        slice((window - n) // 2, (window - n) // 2 + n) for window, n in zip(crop, (rows, columns), strict=True)
    )
    padded[place], ignored[place] = image, label
    return padded, ignored


def _window(length: int, factor: float, window: int, rng: np.random.Generator) -> tuple[float, float, int]:
    """One axis: start and end in pixels of the scene, and how many pixels of the window they fill."""
    scaled = max(round(length * factor), 1)
    filled = min(scaled, window)
    start = int(rng.integers(0, scaled - filled + 1))
    return start * length / scaled, (start + filled) * length / scaled, filled
