"""A fitted detector of rows of features, or logits, that were computed elsewhere: it needs no network and no images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from quantjax import methods, trees
from quantjax.detector import exported, held_out, rows
from quantjax.detector.common import check_threshold, decision_from_content, decision_to_content, score_from_content
from quantjax.detector.decision import Predictor, judge, make_predictor
from quantjax.detector.held_out import ClassThresholds, HeldOut
from quantjax.inference import bucketed
from quantjax.parallel import replicate
from quantjax.types import Array, ClassifierOutput, PyTree


class FeatureDetector(NamedTuple):
    """Everything that decides about a row.

    It takes an array of what its method reads, features [N, D] or logits [N, K], or several by name,
    {"features": ..., "logits": ...}; logits beside features that are read alone say the class.
    """

    dimension: int
    """D; 0 where the method reads no features."""
    class_names: tuple[str, ...]
    """[K]; empty where neither labels nor logits were given."""
    score: str
    """Name of a registered method."""
    settings: Mapping[str, Any]
    """Of the score."""
    params: PyTree
    """What the method fitted."""
    threshold: float
    """On the score; outlier unless score <= threshold. NaN until it is calibrated."""
    calibration: Mapping[str, Any]
    """source, n, and in percent promised_tpr, achieved_tpr and interval; per_class, see `calibrate`."""
    class_thresholds: ClassThresholds | None = None
    """[K], the threshold of each predicted class, None for one that falls back on `threshold`; None: one for all."""
    held_out: HeldOut | None = None
    """Inliers that the thresholds were set on; None where they are not kept."""


def widths(detector: FeatureDetector) -> dict[str, int]:
    """What the score reads -> its width; the logits, too, where the class they predict chooses the threshold."""
    known = {"features": detector.dimension, "logits": len(detector.class_names)}
    read = (*methods.get(detector.score).reads, *(["logits"] if detector.class_thresholds is not None else []))
    return {name: known[name] for name in read if name in known}


def predictor(detector: FeatureDetector, *, batch_size: int = 1024, devices: Sequence[Any] | None = None) -> Predictor:
    """Make functions that compile at their first call, and again for logits beside features; see inference.bucketed.

    Raises ValueError when the detector does not hold together (see check), and from its functions for rows that are not
    what it takes.
    """
    check(detector)
    params = replicate(detector.params, devices)
    mapped = bucketed(pipeline(detector), batch_size=batch_size, shared=1, devices=devices)
    take = rows.taking(widths(detector), _classes(detector))
    return make_predictor(partial(mapped, params), take, detector)


def _classes(detector: FeatureDetector) -> dict[str, int]:
    return {"logits": len(detector.class_names)} if detector.class_names else {}


def pipeline(detector: FeatureDetector) -> Callable[[PyTree, Mapping[str, Array]], tuple[Array, ...]]:
    """run(params, {"features" [B, D], "logits" [B, K]}) -> what decision.judge returns."""
    method = methods.get(detector.score)

    def run(params: PyTree, given: Mapping[str, Array]) -> tuple[Array, ...]:
        output: Any = ClassifierOutput(given.get("logits"), given.get("features"), {})  # type: ignore[arg-type]
        with jax.default_matmul_precision("highest"):
            score = method.score(detector.settings, params, methods.View(output))
        return judge(score, given.get("logits"))

    return run


def content(detector: FeatureDetector) -> tuple[dict[str, Any], dict[str, PyTree]]:
    """(detector.json, arrays) of a detector that `check` accepts."""
    score = {"name": detector.score, "settings": dict(detector.settings)}
    shared = {**decision_to_content(detector), **held_out.to_content(detector)}
    about = {"dimension": detector.dimension, **shared, "score": score}
    return about, {"score": detector.params}


def restore(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> FeatureDetector:
    """Undo `content`; raises ValueError, TypeError, KeyError or AttributeError when it says something else."""
    shared, dimension = decision_from_content(content), int(content["dimension"])
    name, settings = score_from_content(content)
    expected = methods.get(name).template(settings, dimension, len(shared["class_names"]))
    params = trees.restore(arrays, {"score": expected})["score"]
    own = held_out.from_content(content)
    return FeatureDetector(
        dimension=dimension, score=name, settings=settings, params=params, class_thresholds=own, **shared
    )


def export(detector: FeatureDetector, folder: str | Path, **options: Any) -> None:
    """Write the detector as a program that JAX runs alone, on what its score reads: exported.save."""
    check(detector)
    run = partial(pipeline(detector), detector.params)
    exported.save(run, folder, detector, inputs=widths(detector), **options)


def check(detector: FeatureDetector) -> None:
    """Raise ValueError unless names are known, numbers are finite and every array has its place and shape."""
    method = methods.get(detector.score)
    methods.check_settings(method, detector.settings)
    if methods.needs_network(method) or "layers" in method.reads:
        raise ValueError(f"method {method.name} reads {', '.join(method.reads)}: it needs a network and its images")
    for name, width in widths(detector).items():
        if width < 1:
            raise ValueError(f"a detector whose score reads {name} must know their width, got {width}")
    check_threshold(detector)
    held_out.check(detector)
    expected = method.template(detector.settings, detector.dimension, len(detector.class_names))
    trees.check({"score": detector.params}, {"score": expected})
