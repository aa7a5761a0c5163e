"""Windows and scores: what evaluation, calibration and the shipped detector all run.

Logits of both heads are averaged over overlapping windows, every score is made of the averages (Nayal, Shoeb and Güney
2024, arXiv 2409.06424, eq. 9 to 11). Higher = more outlying.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quantjax import resize, scores
from quantjax.extractors import standardise
from quantjax.inference import sliding
from quantjax.segmentation.network import Estimator, FrozenSegmentor, Segmentor, estimate, frozen
from quantjax.segmentation.objectives import UNSCALED, Scales
from quantjax.types import Array, PyTree

Heads = tuple[Array, Array | None]  # F [..., K]; u [..., 2] of inlier and outlier, None without an estimator
Score = Callable[[Array, Any, Scales], Array]  # (F [H, W, K], u [H, W, 2], scales) -> [H, W]
Scorer = Callable[..., dict[str, np.ndarray]]

SCORES: dict[str, Score] = {
    "id": lambda logits, u, scales: scores.inlier(logits, scales.logits),
    "ood": lambda logits, u, scales: scores.unknown(u, scales.unknown),
    "lr": lambda logits, u, scales: scores.likelihood_ratio(u, logits, *scales),
    "msp": lambda logits, u, scales: scores.msp(logits),
    "msp_probability": lambda logits, u, scales: scores.msp(logits, form="probability"),  # as published
    "max_logit": lambda logits, u, scales: scores.max_logit(logits),
    "entropy": lambda logits, u, scales: scores.entropy(logits),
    "energy": lambda logits, u, scales: scores.energy(logits),
    "rba": lambda logits, u, scales: scores.rba(logits),
}
PREDICTION = "prediction"


def make_scorer(
    network: Segmentor | FrozenSegmentor,
    estimator: Estimator | None,
    scores: Mapping[str, Score] | None = None,
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    batch_size: int = 8,
    scales: Scales = UNSCALED,
    num_classes: int | None = None,
    products: str | None = None,
    devices: Sequence[Any] | None = None,
) -> Scorer:
    """run((segmentor variables, estimator variables), image uint8 [H, W, 3]) -> {score: [H, W], "prediction": [H, W]}.

    The image may have any size; see inference.sliding for window, stride (pixels), batch_size (windows) and devices,
    `windows` and `finish` for the rest. By default the one score is "lr". Without an estimator its variables are ().
    """
    scores = {"lr": SCORES["lr"]} if scores is None else scores
    return sliding(
        windows(network, estimator, products),
        finish(scores, scales, num_classes),
        pixelwise=all(score in SCORES.values() for score in scores.values()),
        window=window,
        stride=stride,
        batch_size=batch_size,
        devices=devices,
    )


def windows(
    network: Segmentor | FrozenSegmentor, estimator: Estimator | None, products: str | None = None
) -> Callable[[tuple[PyTree, PyTree], Array], Heads]:
    """fn((segmentor variables, estimator variables), uint8 [B, h, w, 3]) -> (F [B, h, w, K], u [B, h, w, 2]).

    products is the precision of matrix products; None leaves it as it is set.
    """
    beside = frozen(network)

    def run(weights: tuple[PyTree, PyTree], images: Array) -> Heads:
        with nullcontext() if products is None else jax.default_matmul_precision(products):
            maps, logits = beside.apply(weights[0], standardise(images, beside.preprocessing))
            known = resize.bilinear(logits, images.shape[1:3])
            if estimator is None:
                return known, None
            return known, resize.bilinear(estimate(estimator, weights[1], maps).logits, images.shape[1:3])

    return run


def finish(
    scores: Mapping[str, Score], scales: Scales = UNSCALED, num_classes: int | None = None
) -> Callable[[Heads], dict[str, Array]]:
    """fn((F [H, W, K], u [H, W, 2])) -> {score: [H, W] float32, "prediction": [H, W] uint8}.

    The prediction is the best of the first `num_classes` logits (default: of all).
    """

    def run(heads: Heads) -> dict[str, Array]:
        logits, u = heads
        found = {name: score(logits, u, scales).astype(jnp.float32) for name, score in scores.items()}
        return found | {PREDICTION: jnp.argmax(logits[..., :num_classes], axis=-1).astype(jnp.uint8)}

    return run
