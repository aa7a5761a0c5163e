"""What results.json must hold, for each kind of results: the one place that names its keys."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

SCHEMA = 1


class Schema(NamedTuple):
    """Required keys of one kind of results; further keys are kept as they are."""

    positive_class: str
    keys: tuple[str, ...]  # of the results
    identity: tuple[str, ...]  # of a row: together they name it, and no two rows have the same
    rates: tuple[str, ...]  # of a row, in percent
    numbers: tuple[str, ...]  # of a row, not negative: seconds, images per second
    unknown: tuple[str, ...] = ()  # rates that may be None: there was nothing to measure
    nested: Mapping[str, tuple[str, ...]] = {}  # key of the results -> keys that it must hold
    sets: str = "outliers"  # key of the results: the sets that rows are of; [] where nothing was to be evaluated
    percent: tuple[str, ...] = ()  # keys of the results: a rate in percent, or several by name, None: not measured


SECONDS = ("load_seconds", "compile_seconds", "extract_seconds", "fit_seconds", "score_seconds", "total_seconds")
RUN = ("config", "versions", "device", "seed", "seconds")

IMAGES = Schema(
    positive_class="inlier",
    keys=("rows", "accuracy", "calibration", "inlier", *RUN),
    identity=("method", "outlier"),
    rates=(
        "fpr95",
        "auroc",
        "average_precision",
        "aupr_trapezoid",
        "fpr95_outlier_positive",
        "fpr95_outlier_positive_thinned",
        "average_precision_outlier_positive",
        "aupr_trapezoid_outlier_positive",
    ),
    numbers=(*SECONDS, "images_per_second"),
    nested={"calibration": ("source", "n", "promised_tpr", "achieved_tpr", "threshold")},
    percent=("accuracy",),
)
SEGMENTATION = Schema(
    positive_class="outlier",
    keys=("rows", "miou", "parameters", "inlier", *RUN),
    identity=("variant", "method", "dataset"),
    rates=("ap", "fpr95", "auroc", "component_f1"),
    numbers=("score_seconds", "images_per_second"),
    unknown=("component_f1",),
    nested={"miou": ("before", "after")},
    sets="datasets",
    percent=("miou",),
)


def check_results(results: Mapping[str, Any], schema: Schema = IMAGES) -> None:
    """Raise ValueError unless `results` (plain values) follows the schema."""
    _check_keys("results", results, schema.keys)
    for key, wanted in schema.nested.items():
        _check_keys(f"results[{key!r}]", results[key], wanted)
    if not results["rows"] and results.get(schema.sets) != []:
        named = " and ".join(schema.identity)
        raise ValueError(f"results['rows'] must hold at least one row (one for each {named}), got none")
    for index, row in enumerate(results["rows"]):
        _check_row(f"results['rows'][{index}]", row, schema)
    names = [tuple(row[key] for key in schema.identity) for row in results["rows"]]
    repeated = sorted({str(name) for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"results['rows'] must hold each ({', '.join(schema.identity)}) once, repeated: {', '.join(repeated)}"
        )
    for key in schema.percent:
        _check_percent(f"results[{key!r}]", results[key])
    check_number("results['seconds']", results["seconds"], math.inf)
    check_all_finite("results", results)


def _check_row(name: str, row: Any, schema: Schema) -> None:
    _check_keys(name, row, (*schema.identity, *schema.rates, *schema.numbers))
    for key in (*schema.rates, *schema.numbers):
        if row[key] is not None or key not in schema.unknown:
            check_number(f"{name}[{key!r}]", row[key], 100.0 if key in schema.rates else math.inf)


def _check_percent(name: str, value: Any) -> None:
    named = {f"{name}[{key!r}]": one for key, one in value.items()} if isinstance(value, Mapping) else {name: value}
    for key, one in named.items():
        if one is not None:
            check_number(key, one, 100.0)


def _check_keys(name: str, value: Any, keys: Iterable[str]) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping, got {type(value).__name__}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(f"{name} must hold {', '.join(missing)}; it holds {', '.join(value)}")


def check_number(name: str, value: Any, high: float) -> None:
    """Raise ValueError unless value is a finite number in [0, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and 0.0 <= value <= high):
        raise ValueError(f"{name} must be finite and lie in [0, {high:g}], got {value}")


def check_all_finite(name: str, value: Any) -> None:
    """Raise ValueError for NaN or infinity anywhere in nested plain values."""
    if isinstance(value, dict):
        for key, item in value.items():
            check_all_finite(f"{name}[{key!r}]", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_all_finite(f"{name}[{index}]", item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
