"""Metrics over pixels: streamed through a histogram against sorted as a whole."""

from __future__ import annotations

import argparse
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.scenes.sizes import SIZES, load
from benchmarks.timing import alternate
from quantjax.metrics import pixels

IMAGE = 1280 * 720  # pixels that are added at a time


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row; raises SystemExit when a streamed metric is further from the exact one than its own bound says."""
    scores, labels = _pixels(SIZES[options.size].pixels)

    def streamed() -> dict[str, float]:
        counts = pixels.empty()
        for start in range(0, len(scores), IMAGE):
            pixels.add(counts, scores[start : start + IMAGE], labels[start : start + IMAGE])
        return pixels.result(counts)

    def exact() -> dict[str, float]:
        return pixels.pixel_metrics(scores, labels)

    (found, streamed_peak), (wanted, exact_peak) = _peak(streamed), _peak(exact)
    row: dict[str, Any] = {"question": "metrics", "pixels": len(scores), "streamed_peak_mb": streamed_peak}
    row["exact_peak_mb"] = round(exact_peak + (scores.nbytes + labels.nbytes) / 1e6, 1)
    for name in ("ap", "fpr95", "auroc"):
        difference, bound = abs(found[name] - wanted[name]), found[f"{name}_error"]
        row |= {name: wanted[name], f"{name}_difference": difference, f"{name}_bound": bound}
        if not difference <= bound + 1e-12:  # both are sums in float64
            raise SystemExit(f"streamed {name} is {difference} off, more than its bound {bound}")
    medians = alternate({"streamed": streamed, "exact": exact}, options.repeats)
    row |= {f"{name}_ms": round(wall, 2) for name, (wall, _) in medians.items()}
    row["ratio"] = round(medians["exact"][0] / medians["streamed"][0], 3)
    row["ratio_memory"] = round(row["exact_peak_mb"] / row["streamed_peak_mb"], 2)
    yield row | load()


def _pixels(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and labels of which 10 % are ignored and 2 % of the others anomalies, which score higher."""
    draw = np.random.default_rng(0)
    labels = (draw.random(count, np.float32) < 0.02).astype(np.uint8)
    scores = draw.standard_normal(count, np.float32) + np.float32(1.5) * labels
    labels[draw.random(count, np.float32) < 0.1] = 255
    return scores, labels


def _peak(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and the megabytes that it had allocated at the most."""
    tracemalloc.start()
    try:
        result = call()
        return result, round(tracemalloc.get_traced_memory()[1] / 1e6, 1)
    finally:
        tracemalloc.stop()
