"""What a run concludes: thresholds, rates per method and outlier set, the saved detector, the files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import settings
from experiments.images.classifier import Trained
from experiments.images.config import HELD_OUT, INLIER, TRAINING, Settings
from experiments.images.features import Extracted
from experiments.images.scoring import Scored
from experiments.images.sets import Sets, lists_of
from quantjax import data, detector, methods, metrics
from quantjax.methods import Fitted
from quantjax.report import Curve, MethodScores, write_openood, write_results

PAPER_REPEATS = 3
CALIBRATION_SEED = 0  # fixed: the same half of the test inliers calibrates every run


def calibrate(config: Settings, scored: Scored) -> metrics.Calibration:
    """The threshold that keeps `calibration_tpr` of held-out inliers, and the rate it keeps on others.

    Training images in neither stage calibrate when there are any; foreign weights saw all of them, so a fixed half of
    the test inliers calibrates and the other half is judged. A benchmark has a validation list for it.
    """
    source, held, other = calibrating(config, scored)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `too_few` says it once for all methods
        return metrics.calibrate(held, source=source, tpr=config.calibration_tpr, check_scores=other)


def calibrating(config: Settings, scored: Scored) -> tuple[str, np.ndarray, np.ndarray]:
    """(where they come from, scores that set the threshold, scores of other inliers that it is judged on)."""
    inliers = scored.scores[INLIER]
    if config.protocol == "openood":
        return "inliers of the validation list", scored.scores[HELD_OUT], inliers
    if HELD_OUT in scored.scores:
        return "training images in neither stage", scored.scores[HELD_OUT], inliers
    half, rest = data.half_split(len(inliers), CALIBRATION_SEED)
    return "half of the test inliers", inliers[half], inliers[rest]


def too_few(config: Settings, calibration: metrics.Calibration) -> str | None:
    """A warning where the held-out inliers are too few to promise --calibration-tpr, else None."""
    if calibration.promised_tpr >= config.calibration_tpr:
        return None
    return (
        f"warning: {calibration.n} {calibration.source} promise to accept {100 * calibration.promised_tpr:.1f} %, "
        f"--calibration-tpr {config.calibration_tpr} needs {metrics.inliers_needed(config.calibration_tpr)} of them: "
        "give more images"
    )


def in_percent(calibration: metrics.Calibration) -> dict[str, Any]:
    """The calibration as it is written to files: rates in percent."""
    return detector.in_percent(calibration) | {"threshold": calibration.threshold}


def public(identity: Mapping[str, Any], config: Settings) -> dict[str, Any]:
    """The settings as results.json shows them: the file of --weights by its name and content."""
    return dict(identity) | {"weights": f"{config.weights.name} {identity['weights']}" if config.weights else None}


def about(name: str, fitted: Fitted) -> dict[str, Any]:
    """What the report says of a method: what its score reads, the settings it ran with, where it comes from."""
    method = methods.get(name)
    return {"reads": list(method.reads), "settings": dict(fitted.settings), "paper": method.paper}


def rates(scores_in: np.ndarray, scores_out: np.ndarray) -> dict[str, float]:
    """The rates of one method on one outlier set, in percent; metrics.rates says whose convention each is."""
    sides = scores_in, scores_out
    values = {
        "fpr95": metrics.fpr_at_tpr(*sides, positive="inlier"),
        "auroc": metrics.auroc(*sides),
        "average_precision": metrics.average_precision(*sides, positive="inlier"),
        "aupr_trapezoid": metrics.aupr_trapezoid(*sides, positive="inlier"),
        "fpr95_outlier_positive": metrics.fpr_at_tpr(*sides, positive="outlier"),
        "fpr95_outlier_positive_thinned": metrics.fpr_at_tpr(*sides, positive="outlier", thinned=True),
        "average_precision_outlier_positive": metrics.average_precision(*sides, positive="outlier"),
        "aupr_trapezoid_outlier_positive": metrics.aupr_trapezoid(*sides, positive="outlier"),
    }
    return {name: 100.0 * value for name, value in values.items()}


def protocol_rates(config: Settings, scores_in: np.ndarray, scores_out: np.ndarray) -> dict[str, float]:
    """Rates on the whole outlier set, or the mean over three shuffled draws of the paper's size."""
    if config.protocol != "paper":
        return rates(scores_in, scores_out)
    cap = data.paper_cap(len(scores_in))
    draws = [rates(scores_in, data.subset(scores_out, cap, [config.seed, k])) for k in range(PAPER_REPEATS)]
    return {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}


def rows(
    config: Settings,
    sets: Sets,
    scored: Mapping[str, Scored],
    outputs: Mapping[str, Extracted],
    fit_seconds: Mapping[str, float],
    extract_compile_seconds: float,
) -> list[dict[str, Any]]:
    """One row per method and outlier set: rates, and the seconds of inliers plus this outlier set.

    Rows of a benchmark also say whether the set is near or far.
    """
    lists = lists_of(config)
    group_of = {} if lists is None else {name: group for group, names in lists.groups.items() for name in names}
    result = []
    for method, one in scored.items():
        for outlier in sets.outliers:
            extract = outputs[INLIER].seconds + outputs[outlier].seconds if one.uses_output else 0.0
            seconds = {
                "load_seconds": sets.load_seconds[INLIER] + sets.load_seconds[outlier],
                "compile_seconds": one.compile_seconds + (extract_compile_seconds if one.uses_output else 0.0),
                "extract_seconds": extract,
                "fit_seconds": fit_seconds[method],
                "score_seconds": one.score_seconds[INLIER] + one.score_seconds[outlier],
            }
            total = sum(seconds.values())
            images = len(sets.test_images) + len(sets.outliers[outlier])
            result.append(
                {"method": method, "outlier": outlier}
                | ({"group": group_of[outlier]} if group_of else {})
                | protocol_rates(config, one.scores[INLIER], one.scores[outlier])
                | seconds
                | {"total_seconds": total, "images_per_second": images / total}
            )
    return result


def benchmark(
    config: Settings, sets: Sets, scored: Mapping[str, Scored], outputs: Mapping[str, Extracted]
) -> dict[str, Any]:
    """What results hold of a benchmark of OpenOOD alone, see report.openood; {} of another protocol."""
    lists = lists_of(config)
    if lists is None:
        return {}
    found: dict[str, Any] = {"groups": lists.groups}
    if not sets.shifted:
        return found
    inliers = (INLIER, *sets.shifted)
    logits = np.concatenate([outputs[name].logits for name in inliers])
    labels = np.concatenate([sets.test_labels, *(one.labels for one in sets.shifted.values())])
    full_rows = [
        {"method": method, "outlier": outlier}
        | rates(np.concatenate([one.scores[name] for name in inliers]), one.scores[outlier])
        for method, one in scored.items()
        for outlier in sets.outliers
    ]
    full = {"inliers": list(sets.shifted), "accuracy": 100.0 * metrics.accuracy(logits, labels), "rows": full_rows}
    return found | {"full_spectrum": full}


def doubted(config: Settings, rows: Sequence[Mapping[str, Any]], scored: Mapping[str, Scored]) -> str | None:
    """The warning that belongs to the detector of --detector, None when nothing speaks against it."""
    auroc = {
        name: float(np.mean([row["auroc"] for row in rows if row["method"] == name])) / 100.0 for name in scored if rows
    }
    scores = scored[config.detector].scores
    return settings.doubted(
        config.detector, auroc, training=scores.get(TRAINING), held_out=scores.get(HELD_OUT, scores[INLIER])
    )


def save_detector(
    folder: Path,
    config: Settings,
    trained: Trained,
    class_names: tuple[str, ...],
    method: str,
    fitted: Fitted,
    calibration: metrics.Calibration,
    scored: Scored,
) -> None:
    """The calibrated detector as one artefact that `python -m experiments.predict --run` reads."""
    detector.save(
        detector.Detector(
            backbone=config.backbone,
            variables=trained.variables,
            preprocessing=trained.preprocessing,
            image_size=config.image_size,
            class_names=class_names,
            precision=config.precision,
            score=method,
            settings=fitted.settings,
            params=fitted.params,
            threshold=calibration.threshold,
            calibration=detector.in_percent(calibration),
            held_out=detector.keep(calibrating(config, scored)[1]),
        ),
        folder,
    )


def write(
    folder: Path,
    results: Mapping[str, Any],
    scored: Mapping[str, Scored],
    calibrations: Mapping[str, metrics.Calibration],
    curve: Curve | None,
) -> None:
    """results.json, results.md and report.html; of a benchmark of OpenOOD its CSV files before them."""
    shown = {
        name: MethodScores(
            one.scores[INLIER],
            {k: v for k, v in one.scores.items() if k in results["outliers"]},
            calibrations[name].threshold,
        )
        for name, one in scored.items()
        if results["outliers"]
    }
    if "groups" in results:
        write_openood(folder, results)
    write_results(folder, results, scores=shown, curves=[] if curve is None else [curve])
