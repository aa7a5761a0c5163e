"""Images that do not fit into memory: rows that are decoded anew by every pass over them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

from quantjax.data.content import digest
from quantjax.data.images import fit
from quantjax.data.readers import FileSource, part
from quantjax.machine import cores


class StreamedImages:
    """The images of a source of files as rows uint8 [N, S, S, 3], of which slices are decoded when asked for.

    `images[10:20]` is an array; the slice of as many rows behind it is decoded in advance, so that a pass over batches
    never waits for more than its first. Resizing is that of `load`. Two with equal `fingerprint` hold the same images.
    `identity` is what stands for the content of the source, where that is known; else its files are hashed once.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, source: FileSource, size: int, short_side: int | None = None, identity: str | None = None):
        self.source, self.size, self.short_side, self.identity = source, size, short_side, identity
        self._pool = ThreadPoolExecutor(2 * cores(), thread_name_prefix="decode")
        self._ahead: tuple[range, list[Future[np.ndarray]]] = (range(0), [])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3)"""
        return (len(self), self.size, self.size, 3)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the content of the files, in order, and of the size."""
        return digest(self.identity or self.source, self.size, self.short_side)

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self.source)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """The rows of a slice, uint8 [., S, S, 3]; raises ValueError, which names the file, for one that is damaged."""
        wanted = range(len(self))[rows]
        known, waiting = self._ahead
        futures = waiting if known == wanted else self._decode(wanted)
        following = range(wanted.stop, min(wanted.stop + len(wanted), len(self)))
        self._ahead = (following, self._decode(following))
        images = [future.result() for future in futures]
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        """Refused: all rows at once are what memory does not hold."""
        size = megabytes(self.shape)
        raise ValueError(f"{len(self):,} images are decoded as they are needed; all at once are {size:,.0f} MB")

    def chosen(self, rows: np.ndarray | slice) -> StreamedImages:
        """Some of the rows, in the order given."""
        indices = np.arange(len(self))[rows]
        source = part(self.source, indices)
        assert isinstance(source, FileSource)
        return StreamedImages(source, self.size, self.short_side, digest(self.fingerprint, indices))

    def _decode(self, rows: Iterable[int]) -> list[Future[np.ndarray]]:
        return [self._pool.submit(self._image, row) for row in rows]

    def _image(self, row: int) -> np.ndarray:
        return fit(self.source[row]["image"], self.size, self.short_side)


def megabytes(shape: tuple[int, ...]) -> float:
    """What uint8 of that shape takes in memory, 10^6 bytes."""
    return float(np.prod(shape, dtype=np.float64)) / 1e6


def streamed(source: Any, size: int, short_side: int | None, resident_mb: float) -> StreamedImages | None:
    """The images of a source of files that take more than `resident_mb` megabytes, as such rows; None for others."""
    if not isinstance(source, FileSource) or megabytes((len(source), size, size, 3)) <= resident_mb:
        return None
    return StreamedImages(source, size, short_side)


def rows_of(images: Any, rows: np.ndarray | slice) -> Any:
    """Some rows of an array, or of streamed images, which stay streamed."""
    return images.chosen(rows) if isinstance(images, StreamedImages) else images[rows]
