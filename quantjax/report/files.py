"""Result files of a run: results.json, results.md, report.html and metrics.jsonl.

Rates are percent, times seconds. Files are replaced whole: a reader sees the old one or the new one, never half of one.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quantjax.report.page import Curve, MethodScores, render
from quantjax.report.tables import aupr_table, fpr_auroc_table, outlier_positive_table, share, to_markdown

SCHEMA = 1
RATES = ("fpr95", "auroc", "aupr", "fpr95_outlier_positive", "aupr_outlier_positive")
SECONDS = ("load_seconds", "compile_seconds", "extract_seconds", "fit_seconds", "score_seconds", "total_seconds")
ROW_KEYS = ("method", "outlier", *RATES, *SECONDS, "images_per_second")
KEYS = ("rows", "accuracy", "calibration", "inlier", "config", "versions", "device", "seed", "seconds")
CALIBRATION_KEYS = ("source", "n", "promised_tpr", "achieved_tpr", "threshold")


def write_results(
    directory: str | Path,
    results: Mapping[str, Any],
    *,
    scores: Mapping[str, MethodScores] | None = None,
    curves: Sequence[Curve] = (),
) -> None:
    """Write results.md, report.html and, last, results.json into `directory`: its presence means the run is complete.

    `results` holds rows, one per method and outlier set (method, outlier, fpr95, auroc, aupr, fpr95_outlier_positive,
    aupr_outlier_positive in percent, {load, compile, extract, fit, score, total}_seconds, images_per_second), and
    accuracy (percent), calibration, inlier, config, versions, device, seed, seconds. `schema` and `positive_class` are
    added. An optional `note` (text) stands on top of the report; further keys are kept. `scores` per method feed the
    histograms and ROC curves, `curves` the flow's progress per epoch.

    Raises ValueError for a missing key, a rate outside 0..100 or a number that is not finite; nothing is written then.
    """
    results = {"schema": SCHEMA, "positive_class": "inlier", **_plain(results)}
    check_results(results)
    page = render(results, scores or {}, curves)
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    directory = Path(directory)
    write_text(directory / "results.md", to_text(results))
    write_text(directory / "report.html", page)
    write_text(directory / "results.json", text)


def check_results(results: Mapping[str, Any]) -> None:
    """Raise ValueError unless `results` (plain values) follows the schema that `write_results` describes."""
    _check_keys("results", results, KEYS)
    _check_keys("results['calibration']", results["calibration"], CALIBRATION_KEYS)
    if not results["rows"]:
        raise ValueError("results['rows'] must hold at least one row (one method on one outlier set), got none")
    for index, row in enumerate(results["rows"]):
        _check_keys(f"results['rows'][{index}]", row, ROW_KEYS)
        for key in (*RATES, *SECONDS, "images_per_second"):
            _check_number(f"results['rows'][{index}][{key!r}]", row[key], 100.0 if key in RATES else math.inf)
    pairs = [(row["method"], row["outlier"]) for row in results["rows"]]
    repeated = sorted({str(pair) for pair in pairs if pairs.count(pair) > 1})
    if repeated:
        raise ValueError(f"results['rows'] must hold each (method, outlier) once, repeated: {', '.join(repeated)}")
    _check_number("results['accuracy']", results["accuracy"], 100.0)
    _check_number("results['seconds']", results["seconds"], math.inf)
    _check_finite("results", results)


def to_text(results: Mapping[str, Any]) -> str:
    """results.md: the layout of Table 1 of QuantOD (Taghikhah et al., AAAI 2024), then AUPR and seconds."""
    calibration = results["calibration"]
    accepted = f"promised {share(calibration['promised_tpr'])}, achieved {share(calibration['achieved_tpr'])}"
    parts = [
        f"# Outlier detection, inliers: {results['inlier']}",
        *([str(results["note"])] if results.get("note") else []),
        f"Inlier accuracy {results['accuracy']:.2f} %. Threshold {calibration['threshold']:.6g} "
        f"from {calibration['n']} {calibration['source']}; inliers accepted: {accepted}. "
        f"Seed {results['seed']}, {results['device']}, {results['seconds']:.1f} s.",
    ]
    for table in (fpr_auroc_table(results), aupr_table(results), outlier_positive_table(results)):
        parts += [f"## {table.title}", table.note, to_markdown(table)]
    return "\n\n".join(parts) + "\n"


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NumPy values become plain ones. Raises ValueError on NaN."""
    value = _plain(value)
    _check_finite(Path(path).name, value)
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to a temporary file beside `path`, then rename it into place; makes missing parent folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def append_jsonl(path: str | Path, row: Mapping[str, Any]) -> None:
    """Append one row as a line of JSON; NaN and infinity become null, a line that a kill cut short is ended first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(_without_infinities(_plain(row)), allow_nan=False)
    with path.open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write((line + "\n").encode())


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a line that a kill cut short is left out, a missing file has no rows."""
    path = Path(path)
    return list(_rows(path.read_text(encoding="utf-8", errors="replace").splitlines())) if path.exists() else []


def _rows(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def _plain(value: Any) -> Any:
    """NumPy and JAX scalars and arrays, paths and tuples as JSON's own types."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    return value


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_infinities(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_infinities(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_keys(name: str, value: Any, keys: Iterable[str]) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping, got {type(value).__name__}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(f"{name} must hold {', '.join(missing)}; it holds {', '.join(value)}")


def _check_number(name: str, value: Any, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and 0.0 <= value <= high):
        raise ValueError(f"{name} must be finite and lie in [0, {high:g}], got {value}")


def _check_finite(name: str, value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(f"{name}[{key!r}]", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_finite(f"{name}[{index}]", item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
