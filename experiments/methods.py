"""The methods that a run compares: a score of the library, its settings, and how it is fitted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.features import Extracted, Extractor, Progress
from quantjax import scores
from quantjax.detector import View, evaluate, needs_images
from quantjax.extractors import standardise
from quantjax.inference import batched
from quantjax.types import ClassifierOutput, PyTree

KNN_STEP, KNN_ROWS = 5, 100  # every 5th training feature makes the bank, more of a set too small for 100 of them


class Choice(NamedTuple):
    """One line of the table of methods."""

    method: str  # name in quantjax.detector.METHODS
    settings: Mapping[str, Any]
    fit: Callable[[np.ndarray, np.ndarray, int], PyTree]  # (features [N, D], labels [N], K) -> parameters
    reads_features: bool = True


def _nothing(features: np.ndarray, labels: np.ndarray, num_classes: int) -> PyTree:
    return ()


def fitted_flow(settings: Mapping[str, Any], params: PyTree) -> Choice:
    """The line of a flow that stage 2 has trained."""
    return Choice("quantod", settings, lambda *_: params, reads_features=False)


def _background(features: np.ndarray, labels: np.ndarray, num_classes: int) -> PyTree:
    return scores.fit_tied_gaussian(features, labels, num_classes), scores.fit_background(features)


def _bank(features: np.ndarray, labels: np.ndarray, num_classes: int) -> PyTree:
    return scores.fit_neighbours(features[:: min(KNN_STEP, max(1, len(features) // KNN_ROWS))])


# Settings of the papers: ODIN (Liang et al. 2018) T = 1000, epsilon = 0.0048; Mahalanobis (Lee et al. 2018) and GEM
# (Morteza and Li 2022) epsilon = 0.0005; KNN the 10th neighbour.
CHOICES: dict[str, Choice] = {
    "msp": Choice("msp", {}, _nothing, reads_features=False),
    "max_logit": Choice("max_logit", {}, _nothing, reads_features=False),
    "energy": Choice("energy", {"temperature": 1.0}, _nothing, reads_features=False),
    "odin": Choice("odin", {"temperature": 1000.0, "epsilon": 0.0048}, _nothing, reads_features=False),
    "mahalanobis": Choice("mahalanobis", {}, scores.fit_tied_gaussian),
    "mahalanobis_perturbed": Choice("mahalanobis", {"epsilon": 0.0005}, scores.fit_tied_gaussian),
    "relative_mahalanobis": Choice("relative_mahalanobis", {}, _background),
    "gem": Choice("gem", {}, scores.fit_tied_gaussian),
    "gem_perturbed": Choice("gem", {"epsilon": 0.0005}, scores.fit_tied_gaussian),
    "knn": Choice("knn", {"k": 10}, _bank),
}


class Scored(NamedTuple):
    """The scores of one method and where its time went; higher = more outlying."""

    scores: dict[str, np.ndarray]  # set -> [N]
    score_seconds: dict[str, float]
    compile_seconds: float
    uses_output: bool  # whether it reads the shared backbone pass


def score_sets(
    choice: Choice,
    params: PyTree,
    extractor: Extractor,
    images: Mapping[str, np.ndarray],
    outputs: Mapping[str, Extracted],
    batch_size: int,
    progress: Progress,
) -> Scored:
    """Score every set with one compiled function: on the cached outputs, or on images where it needs a gradient."""
    from_images = needs_images(choice.method, choice.settings)
    std = tuple(map(float, extractor.preprocessing.std))

    def on_outputs(params: PyTree, output: tuple[Any, Any]) -> Any:
        view = View(ClassifierOutput(output[0], output[1], {}))
        return evaluate(choice.method, choice.settings, params, view)

    def on_images(weights: tuple[PyTree, PyTree], batch: Any) -> Any:
        variables, params = weights
        inputs = standardise(batch, extractor.preprocessing)

        def classify(x: Any) -> ClassifierOutput:
            return extractor.classify(variables, x)

        return evaluate(choice.method, choice.settings, params, View(classify(inputs), inputs, classify, std))

    run = batched(on_images if from_images else on_outputs, batch_size=batch_size, shared=1)
    shared = (extractor.variables, params) if from_images else params
    inputs: Mapping[str, Any] = (
        images if from_images else {name: (out.logits, out.features) for name, out in outputs.items()}
    )
    first = next(iter(inputs.values()))
    start = time.perf_counter()
    run(shared, first[:1] if from_images else tuple(part[:1] for part in first))
    compile_seconds = time.perf_counter() - start
    scored, seconds = {}, {}
    for name, rows in inputs.items():
        start = time.perf_counter()
        if from_images:
            with progress(f"{choice.method} on {name}") as report:
                scored[name] = run(shared, rows, report=report)
        else:
            scored[name] = run(shared, rows)
        seconds[name] = time.perf_counter() - start
    return Scored(scored, seconds, compile_seconds, not from_images)
