"""Mahalanobis scoring of cached features: one product after whitening against a loop over batches and classes.

    python benchmarks/mahalanobis.py --output benchmarks/results/mahalanobis_cpu.json

Needs the torch extra; about 20 s on 2 CPU cores; goal: ratio >= 20.

The torch side is the common program of the field: for every batch of 128 rows and every class the whole B x B product
(f - mu_k) P (f - mu_k)^T, of which only the diagonal is read. Our side scores all cached rows in one compiled call
(`ratio`), and, to keep the batches equal, also one call per batch of 128 (`ratio_per_batch`). Both sides alternate and
medians are compared; compilation and fitting are apart. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]
from benchmarks.machine import machine  # noqa: E402, the line above makes it findable
from benchmarks.timing import alternate  # noqa: E402
from quantjax import scores  # noqa: E402

PAUSE = 0.3  # seconds; worker threads of the side before spin for up to 0.2 s
DIMENSION, CLASSES, ROWS, TRAIN_ROWS, BATCH = 128, 10, 10_000, 20_000, 128


def synthetic_features() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlated, non-negative features of ten classes, as a ReLU and an average pool leave them."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(DIMENSION, DIMENSION)) / np.sqrt(DIMENSION)
    centres = rng.normal(size=(CLASSES, DIMENSION))
    labels = np.arange(TRAIN_ROWS + ROWS) % CLASSES
    rows = np.maximum(rng.normal(size=(len(labels), DIMENSION)) @ mix + centres[labels], 0.0).astype(np.float32)
    return rows[:TRAIN_ROWS], labels[:TRAIN_ROWS], rows[TRAIN_ROWS:]


def torch_program(train: np.ndarray, labels: np.ndarray):
    """Return rows -> negated confidences, by batch and class, with everything fitted beforehand."""
    import torch

    features, classes = torch.tensor(train), torch.tensor(labels)
    means = torch.stack([features[classes == k].mean(0) for k in range(CLASSES)])
    residual = (features - means[classes]).double()
    covariance = residual.T @ residual / len(residual) + 1e-6 * torch.eye(DIMENSION, dtype=torch.float64)
    precision = torch.linalg.inv(covariance).float()

    @torch.no_grad()
    def score(rows):
        parts = []
        for batch in rows.split(BATCH):
            per_class = []
            for k in range(CLASSES):
                centred = batch - means[k]
                per_class.append(-0.5 * torch.mm(torch.mm(centred, precision), centred.t()).diag())
            parts.append(-torch.stack(per_class, 1).max(1).values)
        return torch.cat(parts).numpy()

    return score, torch


def measure(repeats: int) -> dict[str, object]:
    train, labels, rows = synthetic_features()
    theirs, torch = torch_program(train, labels)
    cached_torch, cached = torch.tensor(rows), jnp.asarray(rows)
    start = time.perf_counter()
    gaussian = scores.fit_tied_gaussian(train, labels, CLASSES)
    fit_seconds = time.perf_counter() - start
    score = jax.jit(scores.mahalanobis)
    batches = [cached[start : start + BATCH] for start in range(0, ROWS, BATCH)]
    start = time.perf_counter()
    jax.block_until_ready(score(gaussian, cached))
    compile_seconds = time.perf_counter() - start
    sides = {
        "torch": lambda: theirs(cached_torch),
        "ours": lambda: np.asarray(score(gaussian, cached)),
        "ours_per_batch": lambda: np.concatenate([np.asarray(s) for s in [score(gaussian, b) for b in batches]]),
    }
    answers = {name: call() for name, call in sides.items()}  # also the warm-up
    difference = max(np.abs(answers[name] / answers["torch"] - 1).max() for name in ("ours", "ours_per_batch"))
    median = {name: wall / 1e3 for name, (wall, _) in alternate(sides, repeats, pause=PAUSE).items()}
    return {
        "benchmark": "mahalanobis",
        "ratio": round(median["torch"] / median["ours"], 2),
        "ratio_per_batch": round(median["torch"] / median["ours_per_batch"], 2),
        "goal": 20.0,
        "median_seconds": {name: round(value, 6) for name, value in median.items()},
        "compile_seconds": round(compile_seconds, 3),
        "fit_seconds": round(fit_seconds, 3),
        "largest_relative_difference": float(difference),
        "sizes": {"D": DIMENSION, "K": CLASSES, "N": ROWS, "batch": BATCH, "repeats": repeats},
        "machine": machine(torch.get_num_threads()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=21, help="alternating measurements of each side")
    parser.add_argument("--output", type=Path, help="also write the result there")
    arguments = parser.parse_args()
    result = measure(arguments.repeats)
    print(json.dumps(result))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
