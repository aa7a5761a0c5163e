"""Stage 1 for a frozen transformer: a linear layer, trained with cross-entropy on cached class tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.images import features
from experiments.images.config import Settings
from experiments.images.stage_one import stage_one
from experiments.progress import OpenProgress
from quantjax.classification import fit_probe
from quantjax.extractors import probe
from quantjax.types import Preprocessing, PyTree


def train(
    config: Settings,
    model: Any,
    variables: PyTree,
    preprocessing: Preprocessing,
    images: np.ndarray,
    labels: np.ndarray,
    folder: Path,
    progress: OpenProgress,
) -> PyTree:
    """Replace the head in `variables` by one trained on the first len(labels) of images uint8 [N, H, W, 3].

    Class tokens of all N come from the cache that every later stage reads, too: the transformer sees an image once.
    """
    extractor = features.build(
        model, variables, preprocessing, config.image_size, config.score_batch_size, config.precision
    )
    tokens = features.extract(extractor, "training set", images, folder.parent / "cache", progress).features
    transformer, head = probe.split(variables)
    with stage_one(config, folder, progress) as options:
        head = fit_probe(head, tokens[: len(labels)], labels, **options)
    return probe.join(transformer, head)
