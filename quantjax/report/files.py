"""Result files of a run: results.json, results.md, report.html and metrics.jsonl.

Rates are percent, times seconds. Files are replaced whole: a reader sees the old one or the new one, never half of one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quantjax.atomic import naming, write_text
from quantjax.report import page as images
from quantjax.report import scenes as scene_page
from quantjax.report.maps import Example
from quantjax.report.page import Curve, MethodScores
from quantjax.report.schema import IMAGES, SCHEMA, SEGMENTATION, Schema, check_all_finite, check_results


def write_results(
    directory: str | Path,
    results: Mapping[str, Any],
    *,
    scores: Mapping[str, MethodScores] | None = None,
    curves: Sequence[Curve] = (),
) -> None:
    """Write results.md, report.html and, last, results.json into `directory`: its presence means the run is complete.

    `results` holds rows, one per method and outlier set (method, outlier, the rates of schema.IMAGES in percent, {load,
    compile, extract, fit, score, total}_seconds, images_per_second), and accuracy (percent), calibration, inlier,
    config, versions, device, seed, seconds. Accuracy is None where it was not measured, seed where nothing was drawn.
    Without rows `outliers` must be [], which says that thresholds were set and nothing was evaluated. `schema` and
    `positive_class` are added. An optional `note` (text) stands on top of the report; further keys are kept, and
    `outliers_accepted` (percent) of all rows gives a table of what the stored threshold does. `scores` per method feed
    the histograms and ROC curves, `curves` the flow's progress per epoch. Results of a benchmark of OpenOOD hold groups
    and perhaps full_spectrum, see `report.openood`; its tables come first.

    Raises ValueError for a missing key, a rate outside 0..100 or a number that is not finite; nothing is written then.
    """
    results = _checked(results, IMAGES)
    _write(Path(directory), results, images.to_text(results), images.render(results, scores or {}, curves))


def write_scenes(
    directory: str | Path,
    results: Mapping[str, Any],
    *,
    scenes: Mapping[str, Sequence[Example]] | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Write results.md, report.html and, last, results.json of anomaly segmentation into `directory`.

    `results` holds rows, one per variant, method and evaluation set (variant, method, dataset, ap, fpr95, auroc,
    component_f1 in percent, the last None where not measured, score_seconds, images_per_second), and miou ({before,
    after} the second stage, percent), parameters, inlier, config, versions, device, seed, seconds. Seed is None where
    nothing was drawn; outliers_found and inliers_kept (percent) of all rows give a table of what the stored threshold
    does. The positive class is the outlier. Without rows `datasets` must be [], as `outliers` in write_results; note
    and further keys are as there. `scenes` per evaluation set become rows of maps, `class_names` [K] the legend of
    those that hold predicted classes.

    Raises ValueError as write_results does, and for maps that do not fit their image; nothing is written then.
    """
    results = _checked(results, SEGMENTATION)
    page = scene_page.render(results, scenes or {}, class_names)
    _write(Path(directory), results, scene_page.to_text(results), page)


def to_text(results: Mapping[str, Any]) -> str:
    """What results.md says of the `results` that write_results or write_scenes takes; raises as they do."""
    of_scenes = "miou" in results
    checked = _checked(results, SEGMENTATION if of_scenes else IMAGES)
    return scene_page.to_text(checked) if of_scenes else images.to_text(checked)


def _checked(results: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    results = {"schema": SCHEMA, "positive_class": schema.positive_class, **_plain(results)}
    check_results(results, schema)
    return results


def _write(directory: Path, results: Mapping[str, Any], summary: str, html: str) -> None:
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    write_text(directory / "results.md", summary)
    write_text(directory / "report.html", html)
    write_text(directory / "results.json", text)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NumPy values become plain ones. Raises ValueError on NaN."""
    value = _plain(value)
    check_all_finite(Path(path).name, value)
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def append_jsonl(path: str | Path, row: Mapping[str, Any]) -> None:
    """Append one row as a line of JSON; NaN and infinity become null, a line that a kill cut short is ended first."""
    path = Path(path)
    line = json.dumps(_without_infinities(_plain(row)), allow_nan=False)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _append(path, line)


def _append(path: Path, line: str) -> None:
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
