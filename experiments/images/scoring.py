"""The methods that a run compares, scored and timed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.images.features import Extracted, Extractor
from experiments.progress import OpenProgress
from quantjax.extractors import standardise
from quantjax.inference import batched
from quantjax.methods import Fitted, Method, View, needs_network
from quantjax.types import ClassifierOutput, PyTree

CACHED_ROWS = 2048  # at once, of logits and features: a batch costs half a millisecond before it computes anything


class Scored(NamedTuple):
    """The scores of one method and where its time went; higher = more outlying."""

    scores: dict[str, np.ndarray]  # set -> [N]
    score_seconds: dict[str, float]
    compile_seconds: float
    uses_output: bool  # whether it reads the shared backbone pass


def score_sets(
    method: Method,
    fitted: Fitted,
    extractor: Extractor,
    images: Mapping[str, np.ndarray],
    outputs: Mapping[str, Extracted],
    batch_size: int,
    progress: OpenProgress,
) -> Scored:
    """Score every set with one compiled function: on the cached outputs, or on images where it needs a gradient.

    batch_size is that of images.
    """
    from_images = needs_network(method)
    std = tuple(map(float, extractor.preprocessing.std))

    def on_outputs(params: PyTree, output: tuple[Any, Any, Any]) -> Any:
        view = View(ClassifierOutput(output[0], output[1], {}), layers=output[2])
        return method.score(fitted.settings, params, view)

    def on_images(weights: tuple[PyTree, PyTree], batch: Any) -> Any:
        variables, params = weights
        inputs = standardise(batch, extractor.preprocessing)

        def classify(x: Any) -> ClassifierOutput:
            return extractor.classify(variables, x)

        return method.score(fitted.settings, params, View(classify(inputs), inputs, classify, std))

    inputs: Mapping[str, Any] = (
        images if from_images else {name: (out.logits, out.features, out.layers) for name, out in outputs.items()}
    )
    rows_at_once = batch_size if from_images else min(CACHED_ROWS, max(len(out.logits) for out in outputs.values()))
    run = batched(on_images if from_images else on_outputs, batch_size=rows_at_once, shared=1)
    shared = (extractor.variables, fitted.params) if from_images else fitted.params
    first = next(iter(inputs.values()))
    start = time.perf_counter()
    run(shared, jax.tree.map(lambda part: part[:1], first))
    compile_seconds = time.perf_counter() - start
    scored, seconds = {}, {}
    for name, rows in inputs.items():
        start = time.perf_counter()
        if from_images:
            with progress(f"{method.name} on {name}") as report:
                scored[name] = run(shared, rows, report=report)
        else:
            scored[name] = run(shared, rows)
        seconds[name] = time.perf_counter() - start
    return Scored(scored, seconds, compile_seconds, not from_images)
