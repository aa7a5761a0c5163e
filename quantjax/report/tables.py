"""Rows of results laid out as tables: methods down, evaluation sets across, their average last."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from quantjax import markdown


class Table(NamedTuple):
    """A laid-out table; `best` marks the cells to set in bold."""

    title: str
    note: str
    header: list[str]
    cells: list[list[str]]
    best: list[list[bool]]


def fpr_auroc_table(results: Mapping[str, Any]) -> Table:
    """FPR95 / AUROC in percent, inlier positive: Table 1 of QuantOD."""
    return lay_out(
        "FPR95 / AUROC, inlier positive",
        "Percent. FPR95: outliers accepted while 95 % of the inliers are (lower is better). AUROC: higher is better. "
        "Positive class: inlier, as in the paper. Bold: lowest FPR95.",
        results["rows"],
        ("fpr95", "auroc"),
    )


def precision_table(results: Mapping[str, Any]) -> Table:
    """Average precision in percent, inlier positive, and inference seconds."""
    return lay_out(
        "Average precision, inlier positive / inference seconds",
        "Average precision: the steps under precision and recall in percent, positive class inlier, higher is better. "
        "Seconds: loading, compiling, extracting, fitting and scoring of one method on the inliers and one outlier "
        "set. Bold: highest average precision.",
        results["rows"],
        ("average_precision", "total_seconds"),
        best=max,
    )


def outlier_positive_table(results: Mapping[str, Any]) -> Table:
    """FPR95 / AUPR in percent with the OUTLIER as positive class, as pytorch-ood has both."""
    return lay_out(
        "The other convention: FPR95 / AUPR, outlier positive",
        "Percent. Positive class: OUTLIER; not comparable with the first table. FPR95: inliers rejected while 95 % of "
        "the outliers are, from every point of the ROC curve, as FPR95TPR of pytorch-ood. AUPR: the trapezoids under "
        "precision and recall, as AUPR-OUT of pytorch-ood and AUPR_OUT of OpenOOD 1.5. AUROC is the same in all. "
        "Bold: lowest FPR95.",
        results["rows"],
        ("fpr95_outlier_positive", "aupr_trapezoid_outlier_positive"),
    )


def openood_table(results: Mapping[str, Any]) -> Table:
    """FPR95 / AUPR in percent as OpenOOD has them: outlier positive for the one, inlier positive for the other."""
    return lay_out(
        "As OpenOOD 1.5 prints them: FPR@95 / AUPR_IN",
        "Percent. FPR@95: positive class OUTLIER, from the corners of the ROC curve alone, so never lower than the one "
        "above. AUPR_IN: the trapezoids under precision and recall, positive class inlier, also AUPR-IN of "
        "pytorch-ood. Bold: lowest FPR@95.",
        results["rows"],
        ("fpr95_outlier_positive_thinned", "aupr_trapezoid"),
    )


def seconds_table(results: Mapping[str, Any]) -> Table:
    """Where the time of each method went, averaged over the outlier sets."""
    parts = ("load", "compile", "extract", "fit", "score", "total")
    methods = unique(row["method"] for row in results["rows"])
    cells = []
    for method in methods:
        rows = [row for row in results["rows"] if row["method"] == method]
        means = [_mean([row[f"{part}_seconds"] for row in rows]) for part in parts]
        cells.append([method, *(f"{m:.2f}" for m in means), f"{_mean([r['images_per_second'] for r in rows]):,.0f}"])
    header = ["Method", *(part.capitalize() for part in parts), "Images per second"]
    note = "Seconds for the inliers and one outlier set, mean over the sets."
    return Table("Where the time goes", note, header, cells, [[False] * len(header) for _ in cells])


def threshold_table(results: Mapping[str, Any]) -> Table:
    """What the detector's own threshold does, in percent; rows hold outliers_accepted where a detector was judged."""
    accepted = results["calibration"]["achieved_tpr"]
    rows = [row | {"inliers_accepted": accepted} for row in results["rows"]]
    note = "Percent, at the threshold that the detector was stored with: few outliers and many inliers are better."
    keys = ("outliers_accepted", "inliers_accepted")
    return lay_out("At the stored threshold: outliers / inliers accepted", note, rows, keys, None)


def ap_fpr_table(results: Mapping[str, Any]) -> Table:
    """AP / FPR95 of pixels in percent, outlier positive: Table 3 of UEM (Nayal et al., 2024)."""
    note = (
        "Percent, over all labelled pixels of a set. AP: average precision, higher is better. FPR95: inlier pixels "
        "rejected while 95 % of the outlier pixels are found, lower is better. Positive class: outlier. "
        "Bold: highest AP."
    )
    rows = results["rows"]
    return lay_out("AP / FPR95, outlier positive", note, rows, ("ap", "fpr95"), max, ("variant", "method"), "dataset")


def pixel_threshold_table(results: Mapping[str, Any]) -> Table:
    """What the detector's own threshold does to pixels, in percent; rows hold both where a detector was judged."""
    note = (
        "Percent of the labelled pixels of a set, at the threshold that the detector was stored with: more is better."
    )
    rows, keys = results["rows"], ("outliers_found", "inliers_kept")
    title = "At the stored threshold: outlier pixels found / inlier pixels kept"
    return lay_out(title, note, rows, keys, None, ("variant", "method"), "dataset")


def auroc_component_table(results: Mapping[str, Any]) -> Table:
    """AUROC of pixels and mean F1 of components, in percent."""
    note = (
        "Percent, higher is better. Component F1: mean over the benchmark's overlap levels, at the threshold of the "
        "best pixel F1. Bold: highest AUROC."
    )
    rows = results["rows"]
    return lay_out("AUROC / component F1", note, rows, ("auroc", "component_f1"), max, ("variant", "method"), "dataset")


def speed_table(results: Mapping[str, Any]) -> Table:
    """How long the scenes of each set took to score."""
    note = "Seconds for all scenes of the set, windows and score included; reading the files is not."
    keys = ("score_seconds", "images_per_second")
    return lay_out("Seconds / images per second", note, results["rows"], keys, None, ("variant", "method"), "dataset")


def lay_out(
    title: str,
    note: str,
    rows: Sequence[Mapping[str, Any]],
    keys: tuple[str, str],
    best: Callable[[list[float]], float] | None = min,
    down: Sequence[str] = ("method",),
    across: str = "outlier",
    averages: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Methods down, evaluation sets across, "first / second" in each cell; an average needs every set, else a dash.

    `down` names the keys that name a method, `across` that of the set; `best` chooses the bold cell of a column.
    `averages` are columns of averages and the sets that stand before each; None: one of all sets.
    """
    names, sets = unique(" ".join(r[k] for k in down) for r in rows), unique(r[across] for r in rows)
    values = {(" ".join(r[k] for k in down), r[across]): tuple(r[k] for k in keys) for r in rows}
    averages = {"Average": sets} if averages is None else averages
    grid: list[list[Any]] = [[] for _ in names]
    for line, name in zip(grid, names, strict=True):
        for group in averages.values():
            part = [values.get((name, one)) for one in group]
            line += [*part, _averages([pair for pair in part if pair is not None]) if None not in part else None]
    header = ["Method", *(column for average, group in averages.items() for column in (*group, average))]
    winners = [_winners([line[c] for line in grid], best) for c in range(len(header) - 1)]
    cells = [[name, *map(_pair, line)] for name, line in zip(names, grid, strict=True)]
    marks = [[False, *(column[i] for column in winners)] for i in range(len(names))]
    return Table(title, note, header, cells, marks)


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, best cells in bold."""
    lines = [
        [f"**{cell}**" if mark else cell for cell, mark in zip(cells, marks, strict=True)]
        for cells, marks in zip(table.cells, table.best, strict=True)
    ]
    return markdown.table(table.header, lines, numbers=True)


def percent(value: float | None) -> str:
    """A rate in percent as text; None was not measured."""
    return "not measured" if value is None else f"{value:.2f} %"


def drawn(results: Mapping[str, Any]) -> str:
    """What the random draws of a run began with, None where it drew nothing."""
    return "nothing drawn" if results["seed"] is None else f"seed {results['seed']}"


def unique(values: Any) -> list[str]:
    """Values without repetition, in the order of their first appearance."""
    return list(dict.fromkeys(values))


def _averages(pairs: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    columns = list(zip(*pairs, strict=True))
    return tuple(None if None in column else _mean([float(value) for value in column]) for column in columns)


def _pair(pair: tuple[Any, ...] | None) -> str:
    return "-" if pair is None else " / ".join("-" if value is None else f"{value:.2f}" for value in pair)


def _winners(pairs: list[Any], best: Callable[[list[float]], float] | None) -> list[bool]:
    known = [pair[0] for pair in pairs if pair is not None]
    winner = best(known) if best is not None and len(known) > 1 else math.nan  # a single method wins nothing
    return [pair is not None and pair[0] == winner for pair in pairs]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
