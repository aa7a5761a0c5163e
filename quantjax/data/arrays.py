"""From a source to arrays, and the row bookkeeping around them: fingerprints, splits, subsets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from quantjax.data.images import fit
from quantjax.data.readers import Row, Source
from quantjax.machine import cores

Report = Callable[[int, int], None]  # (rows done, rows in all)
REPORTS_PER_SET = 20
HELD_OUT_SHARE = 0.2  # of a set that comes without a split
PAPER_SHARE, PAPER_BATCH = 5, 128  # outliers per inliers, and the batch whose remainder the authors drop


def load(
    source: Source, size: int = 32, report: Report | None = None, short_side: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """All rows of a source: images uint8 [N, size, size, 3] and labels int32 [N] (-1 where there are none).

    Images of another size are resized (short side, bilinear, to `short_side` or size) and centre-cropped. Decoding runs
    in threads; a source that already shows `images` of that shape is handed out as it is, without a copy.
    `report(done, N)` is called now and then.

    Raises:
        ValueError: the source is empty, or an image cannot be read (the message names the file).
    """
    total = len(source)
    if total == 0:
        raise ValueError("the data set has no image; check the folder or the split")
    images = getattr(source, "images", None)
    if isinstance(images, np.ndarray) and images.shape[1:] == (size, size, 3) and not short_side:
        labels = np.asarray(getattr(source, "labels"), np.int32)  # noqa: B009, the protocol does not promise it
    else:
        images, labels = _decode(source, total, partial(fit, size=size, short_side=short_side), size, report)
    if report:
        report(total, total)
    return images, labels


def _decode(
    source: Source, total: int, square: Callable[[Any], np.ndarray], size: int, report: Report | None
) -> tuple[np.ndarray, np.ndarray]:
    import grain

    def fitted(row: Row) -> Row:
        return {"image": square(row["image"]), "label": row["label"]}

    options = grain.ReadOptions(num_threads=2 * cores(), prefetch_buffer_size=128)
    images, labels = np.empty((total, size, size, 3), np.uint8), np.empty(total, np.int32)
    every = -(-total // REPORTS_PER_SET)
    for i, row in enumerate(grain.MapDataset.source(source).map(fitted).to_iter_dataset(options)):
        images[i], labels[i] = row["image"], row["label"]
        if report and i and i % every == 0:
            report(i, total)
    return images, labels


def fingerprint(*arrays: Any) -> str:
    """16 hexadecimal digits of the sha256 over dtypes, shapes and bytes; text and numbers count as arrays.

    What has a `fingerprint` of its own, as StreamedImages have, counts as that.
    """
    digest = hashlib.sha256()
    for array in (np.asarray(getattr(given, "fingerprint", given)) for given in arrays):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data if array.dtype.kind in "biufc" else array.tobytes())
    return digest.hexdigest()[:16]


def same_source(inliers: np.ndarray, outliers: np.ndarray) -> bool:
    """Whether every outlier image is exactly one of the inlier images; both [N, H, W, C], in any order.

    Compare loaded images, not names: a path, an alias or a shuffled subset of the inlier set is found as well. Where
    either is streamed, only the same images in the same order are.
    """
    if not (isinstance(inliers, np.ndarray) and isinstance(outliers, np.ndarray)):
        return fingerprint(inliers) == fingerprint(outliers)
    if inliers.shape[1:] != outliers.shape[1:] or inliers.dtype != outliers.dtype:
        return False
    known = {image.tobytes() for image in inliers}
    return all(image.tobytes() in known for image in outliers)


def half_split(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint halves of 0..rows-1, (calibration, evaluation), each in ascending order; the seed fixes them."""
    if rows < 2:
        raise ValueError(f"rows must be at least 2 to split, got {rows}; use a larger set of held-out inliers")
    order = np.random.default_rng(seed).permutation(rows)
    return np.sort(order[: rows // 2]), np.sort(order[rows // 2 :])


def stratified_split(labels: np.ndarray, share: float = HELD_OUT_SHARE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (to train on, held out) of labels [N], each in ascending order; the seed fixes them.

    Of every class `share` of its rows are held out, rounded, at least one; a class of one row is only trained on.
    """
    rng, held_out = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held_out[rows[: max(round(share * len(rows)), 1) if len(rows) > 1 else 0]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def paper_cap(inliers: int) -> int:
    """Outliers per set in QuantOD's tables: a fifth of the inlier test set, in whole batches of 128.

    10,000 inliers -> 1,920. Below one batch the fifth itself is taken, at least one row.
    """
    fifth = inliers // PAPER_SHARE
    return fifth // PAPER_BATCH * PAPER_BATCH or max(fifth, 1)


def subset(images: np.ndarray, cap: int, seed: int | Sequence[int] = 0) -> np.ndarray:
    """At most `cap` rows of images [N, ...], shuffled by the seed."""
    if cap < 1:
        raise ValueError(f"cap must be at least 1, got {cap}")
    return images[np.random.default_rng(seed).permutation(len(images))[:cap]]
