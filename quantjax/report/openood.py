"""Results as OpenOOD 1.5 (Zhang et al., 2023) reports them: outliers positive, near and far sets apart, CSV files.

`results` hold groups, {"near": sets, "far": sets}, and, where inliers of a shifted look were scored, full_spectrum:
{"inliers": their names, "accuracy": percent on all inliers, "rows": as those of the results, rates alone}.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantjax.atomic import write_text
from quantjax.report.tables import Table, lay_out, unique

Rows = Sequence[Mapping[str, Any]]
Groups = Mapping[str, Sequence[str]]
FOLDER = "openood"
COLUMNS = {  # of OpenOOD -> the rate of a row
    "FPR@95": "fpr95_outlier_positive_thinned",
    "AUROC": "auroc",
    "AUPR_IN": "aupr_trapezoid",
    "AUPR_OUT": "aupr_trapezoid_outlier_positive",
}


def benchmark_tables(results: Mapping[str, Any]) -> list[Table]:
    """FPR@95 / AUROC and AUPR_IN / AUPR_OUT, near and far averages beside their sets; twice with the full spectrum."""
    found = _tables(results["rows"], results["groups"], "OpenOOD 1.5", "")
    full = results.get("full_spectrum")
    if full:
        added = f" Inliers are the test images and {', '.join(full['inliers'])}, accuracy {full['accuracy']:.2f} %."
        found += _tables(full["rows"], results["groups"], "OpenOOD 1.5, full spectrum", added)
    return found


def _tables(rows: Rows, groups: Groups, title: str, added: str) -> list[Table]:
    averages = {f"{name} average": sets for name, sets in groups.items()}
    first, second = (
        (COLUMNS["FPR@95"], COLUMNS["AUROC"]),
        (COLUMNS["AUPR_IN"], COLUMNS["AUPR_OUT"]),
    )
    return [
        lay_out(
            f"{title}: FPR@95 / AUROC, outlier positive",
            "Percent. FPR@95: inliers rejected while 95 % of the outliers are, from the corners of the ROC curve. "
            f"Bold: lowest FPR@95.{added}",
            rows,
            first,
            averages=averages,
        ),
        lay_out(
            f"{title}: AUPR_IN / AUPR_OUT",
            "Percent. The trapezoids under precision and recall, positive class inlier and outlier. Bold: highest "
            f"AUPR_IN.{added}",
            rows,
            second,
            max,
            averages=averages,
        ),
    ]


def openood_csv(rows: Rows, groups: Groups, accuracy: float) -> str:
    """The rows of one method as OpenOOD's evaluation writes them: a line a set, then nearood and farood, the averages.

    Percent with two digits; ACC, the accuracy on inliers, stands in each line. Raises ValueError when a set has no row.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *COLUMNS, "ACC"])
    for name, rates in _lines({row["outlier"]: row for row in rows}, groups):
        writer.writerow([name, *(f"{value:.2f}" for value in (*rates, accuracy))])
    return text.getvalue()


def _lines(rows: Mapping[str, Mapping[str, Any]], groups: Groups) -> Iterator[tuple[str, list[float]]]:
    missing = [name for sets in groups.values() for name in sets if name not in rows]
    if missing:
        raise ValueError(f"rows must hold every set of the groups, missing: {', '.join(missing)}")
    for group, sets in groups.items():
        values = [[float(rows[name][key]) for key in COLUMNS.values()] for name in sets]
        yield from zip(sets, values, strict=True)
        yield f"{group}ood", [sum(column) / len(sets) for column in zip(*values, strict=True)]


def write_openood(directory: str | Path, results: Mapping[str, Any]) -> None:
    """Write openood/ood/METHOD.csv and, with the full spectrum, openood/fsood/METHOD.csv into `directory`.

    Folders and layout are those of OpenOOD's --save-csv. Raises ValueError as openood_csv does.
    """
    kinds = {"ood": (results["rows"], results["accuracy"])}
    if full := results.get("full_spectrum"):
        kinds["fsood"] = (full["rows"], full["accuracy"])
    for kind, (rows, accuracy) in kinds.items():
        for method in unique(row["method"] for row in rows):
            own = [row for row in rows if row["method"] == method]
            write_text(
                Path(directory) / FOLDER / kind / f"{method}.csv", openood_csv(own, results["groups"], float(accuracy))
            )
