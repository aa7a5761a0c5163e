"""A saved detector of unknown objects, judged on scenes that it was not fitted to: nothing is fitted here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.progress import OpenProgress
from experiments.scenes.config import DEMONSTRATION, MIX
from experiments.scenes.evaluation import OBSTACLES, SHOWN, in_percent
from experiments.scenes.outcome import parameters
from experiments.scenes.sets import PASTE_SEED
from quantjax import data, detector, metrics, segmentation
from quantjax.data import scenes as known_scenes
from quantjax.detector.decision import is_outlier
from quantjax.metrics.components import ANOMALY_TRACK, OBSTACLE_TRACK
from quantjax.report import Example
from quantjax.rows import IGNORED
from quantjax.segmentation import PREDICTION

BUNDLED_MIX = known_scenes.BUNDLED + MIX
VARIANT = "saved"  # in rows, where a run says which heads it trained


def judge_sets(
    fitted: detector.SceneDetector,
    inlier: str,
    outliers: Sequence[str],
    *,
    data_dir: Path | None,
    batch_size: int,
    progress: OpenProgress,
) -> tuple[dict[str, Any], dict[str, list[Example]]]:
    """(results, scenes to draw by set): the inlier scenes and every evaluation set, at the detector's own height.

    Raises as `open_scenes` does, and ValueError for a set that has no inlier classes or is named twice.
    """
    known = _inliers(fitted, inlier, data_dir)
    if len(set(outliers)) < len(outliers):
        raise ValueError(f"--outliers must name each set once, got {' '.join(outliers)}")
    sets = {name: _outliers(fitted, name, data_dir) for name in outliers}
    predict = detector.predictor(fitted, batch_size=batch_size).predict
    miou, kept, pixels = judge_inliers(predict, fitted, known, progress)
    judged = {name: _judge(predict, fitted, name, scenes, progress) for name, scenes in sets.items()}
    stored = dict(fitted.calibration)
    results = {
        "rows": [row for row, _ in judged.values()],
        "datasets": list(judged),
        "miou": {"before": None, "after": miou},
        "miou_after": "the saved detector's, measured here",
        "parameters": parameters(fitted.variables["segmentor"], fitted.variables["estimator"]),
        "calibration": stored
        | {
            "threshold": fitted.threshold,
            "achieved_tpr": kept,
            "achieved_on": f"{pixels:,} labelled pixels of {len(known):,} scenes of {inlier}",
            "achieved_when_set": stored.get("achieved_tpr"),
        },
    }
    return results, {name: shown for name, (_, shown) in judged.items()}


def _inliers(fitted: detector.SceneDetector, name: str, data_dir: Path | None) -> Any:
    wanted = (*known_scenes.INLIER_SETS, known_scenes.BUNDLED)
    if name not in wanted:
        raise ValueError(f"--inlier must be a set of scenes with known classes, one of {', '.join(wanted)}; got {name}")
    splits = known_scenes.INLIER_SETS[name].splits if name in known_scenes.INLIER_SETS else ("test",)
    return data.open_scenes(name, data_dir, splits[-1], fitted.image_height)


def _outliers(fitted: detector.SceneDetector, name: str, data_dir: Path | None) -> Any:
    if name == BUNDLED_MIX:
        scenes = data.open_scenes(known_scenes.BUNDLED, data_dir, "test", fitted.image_height)
        objects = data.open_objects(DEMONSTRATION["objects"], data_dir, "test")
        return data.PastedScenes(scenes, objects, PASTE_SEED, share=DEMONSTRATION["object_share"])
    wanted = (*known_scenes.EVALUATION_SETS, BUNDLED_MIX)
    if name not in wanted:
        raise ValueError(f"--outliers must be scenes with labelled objects, of {', '.join(wanted)}; got {name}")
    return data.open_scenes(name, data_dir, "test", fitted.image_height)


def judge_inliers(
    predict: Any, fitted: detector.SceneDetector, scenes: Any, progress: OpenProgress
) -> tuple[float | None, float, int]:
    """(mIoU, percent of the labelled pixels that the threshold keeps, their number).

    The mIoU is None where the scenes have other classes than the detector.
    """
    classes = len(fitted.class_names) if tuple(scenes.class_names) == fitted.class_names else 0
    confusion, kept, pixels = np.zeros((classes, classes), np.int64), 0, 0
    with progress("judge inlier scenes") as report:
        for i in range(len(scenes)):
            row = scenes[i]
            found, labelled = predict(row["image"]), row["label"] != IGNORED
            kept, pixels = kept + int((labelled & ~found.outlier).sum()), pixels + int(labelled.sum())
            if classes:
                confusion += metrics.confusion_matrix(found.label, row["label"], classes)
            report(i + 1, len(scenes))
    if not pixels:
        raise ValueError("the inlier scenes have no labelled pixel: name another --inlier set")
    return 100.0 * metrics.mean_iou(confusion) if classes else None, 100.0 * kept / pixels, pixels


def _judge(
    predict: Any, fitted: detector.SceneDetector, name: str, scenes: Any, progress: OpenProgress
) -> tuple[dict[str, Any], list[Example]]:
    shown, examples = {round(i) for i in np.linspace(0, len(scenes) - 1, SHOWN)}, []
    counts = np.zeros((2, 2), np.int64)  # label, decision

    def run(image: np.ndarray) -> Mapping[str, np.ndarray]:
        found = predict(image)
        return {fitted.score: found.score, PREDICTION: found.label}

    def look(index: int, row: Any, maps: Mapping[str, np.ndarray]) -> None:
        score = maps[fitted.score]
        outlier, labelled = is_outlier(score, fitted.threshold), row["label"] != IGNORED
        np.add.at(counts, (row["label"][labelled].astype(int), outlier[labelled].astype(int)), 1)
        if index in shown:
            examples.append(Example(row["name"], row["image"], row["label"], {fitted.score: score}, maps[PREDICTION]))

    minimum = OBSTACLE_TRACK if name in OBSTACLES else ANOMALY_TRACK
    with tempfile.TemporaryDirectory(prefix="score_maps") as folder, progress(f"score {name}") as report:
        found = segmentation.evaluate(
            run, scenes, (fitted.score,), Path(folder), minimum=minimum, report=report, look=look
        )
    (kept, _), (_, marked) = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    row = {"variant": VARIANT, "method": fitted.score, "dataset": name} | in_percent(found.rates[fitted.score])
    at_threshold = {"inliers_kept": 100.0 * float(kept), "outliers_found": 100.0 * float(marked)}
    speed = {"score_seconds": found.seconds, "images_per_second": len(scenes) / found.seconds}
    return row | at_threshold | speed, examples
