"""Rows of results laid out as tables: methods down, outlier sets across, their average last."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


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


def aupr_table(results: Mapping[str, Any]) -> Table:
    """AUPR in percent, inlier positive, and inference seconds."""
    return lay_out(
        "AUPR, inlier positive / inference seconds",
        "AUPR: average precision in percent, positive class inlier, higher is better. Seconds: loading, compiling, "
        "extracting, fitting and scoring of one method on the inliers and one outlier set. Bold: highest AUPR.",
        results["rows"],
        ("aupr", "total_seconds"),
        best=max,
    )


def outlier_positive_table(results: Mapping[str, Any]) -> Table:
    """FPR95 / AUPR in percent with the OUTLIER as positive class, the convention of other benchmarks."""
    return lay_out(
        "The other convention: FPR95 / AUPR, outlier positive",
        "Percent. Positive class: OUTLIER, as OpenOOD and pytorch-ood count; not comparable with the first table. "
        "FPR95: inliers rejected while 95 % of the outliers are. AUROC is the same in both. Bold: lowest FPR95.",
        results["rows"],
        ("fpr95_outlier_positive", "aupr_outlier_positive"),
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


def lay_out(
    title: str,
    note: str,
    rows: Sequence[Mapping[str, Any]],
    keys: tuple[str, str],
    best: Callable[[list[float]], float] = min,
) -> Table:
    """Methods down, outlier sets across, "first / second" in each cell; an average needs every set, else a dash."""
    methods, outliers = unique(r["method"] for r in rows), unique(r["outlier"] for r in rows)
    values = {(r["method"], r["outlier"]): tuple(float(r[k]) for k in keys) for r in rows}
    grid = []
    for method in methods:
        line = [values.get((method, outlier)) for outlier in outliers]
        known = [pair for pair in line if pair is not None]
        complete = len(known) == len(line)
        grid.append([*line, tuple(_mean([p[i] for p in known]) for i in (0, 1)) if complete else None])
    winners = [_winners([line[c] for line in grid], best) for c in range(len(outliers) + 1)]
    cells = [
        [m, *("-" if p is None else f"{p[0]:.2f} / {p[1]:.2f}" for p in line)]
        for m, line in zip(methods, grid, strict=True)
    ]
    marks = [[False, *(column[i] for column in winners)] for i in range(len(methods))]
    return Table(title, note, ["Method", *outliers, "Average"], cells, marks)


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, best cells in bold."""
    lines = [table.header, ["---"] + ["---:"] * (len(table.header) - 1)]
    for cells, marks in zip(table.cells, table.best, strict=True):
        lines.append([f"**{c}**" if mark else c for c, mark in zip(map(_escape, cells), marks, strict=True)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def share(value: float | None) -> str:
    """A rate in percent as text, from a fraction up to 1 or from percent; None was not measured."""
    if value is None:
        return "not measured"
    return f"{100.0 * value if value <= 1.0 else value:.2f} %"


def unique(values: Any) -> list[str]:
    """Values without repetition, in the order of their first appearance."""
    return list(dict.fromkeys(values))


def _winners(pairs: list[Any], best: Callable[[list[float]], float]) -> list[bool]:
    known = [pair[0] for pair in pairs if pair is not None]
    winner = best(known) if len(known) > 1 else math.nan  # a single method wins nothing
    return [pair is not None and pair[0] == winner for pair in pairs]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
