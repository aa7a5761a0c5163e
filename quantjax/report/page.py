"""report.html: one self-contained page with the tables, curves and settings of a run, in light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from quantjax.checks import check_same_length
from quantjax.report import charts, markup
from quantjax.report.openood import benchmark_tables
from quantjax.report.tables import (
    Table,
    drawn,
    fpr_auroc_table,
    openood_table,
    outlier_positive_table,
    percent,
    precision_table,
    seconds_table,
    threshold_table,
    to_markdown,
    unique,
)


class MethodScores(NamedTuple):
    """What the histograms and ROC curves of one method are drawn from; higher = more outlying."""

    inlier: np.ndarray
    """[N]"""
    outliers: Mapping[str, np.ndarray]
    """Outlier set -> [M]"""
    threshold: float | None = None
    """Outlier iff score > threshold"""


class Curve(NamedTuple):
    """Progress of one training of the flow."""

    name: str
    """Legend text, e.g. "quantile, q = 0.05"."""
    epochs: Sequence[int]
    """[E]"""
    fpr95: Sequence[float]
    """[E] percent, inlier positive"""
    auroc: Sequence[float]
    """[E] percent"""


def render(results: Mapping[str, Any], scores: Mapping[str, MethodScores], curves: Sequence[Curve]) -> str:
    """The page as text; an infinite score is drawn at the end of its axis, NaN as the most outlying.

    Raises ValueError when a set has no scores.
    """
    for method, values in scores.items():
        for name, array in {"inlier": values.inlier, **values.outliers}.items():
            if not len(array):
                raise ValueError(f"scores[{method!r}] must hold at least one score per set, got none for {name!r}")
    sections = [
        _tiles(results),
        *(_evaluation(results, scores, curves) if results["rows"] else []),
        markup.settings(results, _groups(results), hidden=("rows", "accuracy", "note", "full_spectrum")),
    ]
    return markup.document(_title(results), results.get("note"), sections)


def _evaluation(results: Mapping[str, Any], scores: Mapping[str, MethodScores], curves: Sequence[Curve]) -> list[str]:
    first, *others = _main_tables(results)
    return [
        markup.section("results", first.title, markup.table(first) + "".join(map(markup.titled_table, others))),
        _curves(curves),
        _roc(scores),
        _histograms(scores),
        markup.section("more", "More tables", "".join(map(markup.titled_table, _more_tables(results)))),
    ]


def to_text(results: Mapping[str, Any]) -> str:
    """results.md: the layout of Table 1 of QuantOD (Taghikhah et al., AAAI 2024), then the other rates and seconds."""
    calibration = results["calibration"]
    accepted = f"promised {_promised(calibration)}, achieved {percent(calibration['achieved_tpr'])}"
    parts = [
        f"# {_title(results)}",
        *([str(results["note"])] if results.get("note") else []),
        f"Inlier accuracy {percent(results['accuracy'])}. Threshold {calibration['threshold']:.6g} "
        f"from {calibration['n']} {calibration['source']}; inliers accepted: {accepted}. "
        f"{drawn(results).capitalize()}, {results['device']}, {results['seconds']:.1f} s.",
    ]
    if not results["rows"]:
        return "\n\n".join([*parts, "No outlier set was given: nothing was evaluated."]) + "\n"
    for table in (*_main_tables(results), *_other_rates(results)):
        parts += [f"## {table.title}", table.note, to_markdown(table)]
    return "\n\n".join(parts) + "\n"


def _promised(calibration: Mapping[str, Any]) -> str:
    """The share promised, with the interval that so many held-out inliers leave; older results have none."""
    interval = calibration.get("interval")
    return percent(calibration["promised_tpr"]) + ("" if not interval else " ({:.1f} to {:.1f} %)".format(*interval))


def _title(results: Mapping[str, Any]) -> str:
    return f"Outlier detection, inliers: {results['inlier']}"


def _groups(results: Mapping[str, Any]) -> list[str]:
    """What the page's settings are listed by; methods, name -> what it is, need not be there."""
    return [key for key in ("calibration", "config", "methods", "versions") if key in results]


def _tiles(results: Mapping[str, Any]) -> str:
    averages = {}
    for method in unique(row["method"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["method"] == method]
        averages[method] = [float(np.mean([row[key] for row in rows])) for key in ("fpr95", "auroc")]
    best = min(averages, key=lambda method: averages[method][0], default=None)
    calibration = results["calibration"]
    tiles = [
        ("Outliers", "none", "nothing was evaluated")
        if best is None
        else (f"Lowest average FPR95: {best}", f"{averages[best][0]:.2f} %", f"AUROC {averages[best][1]:.2f} %"),
        ("Inlier accuracy", percent(results["accuracy"]), f"inliers: {results['inlier']}"),
        ("Inliers accepted", percent(calibration["achieved_tpr"]), f"promised {_promised(calibration)}"),
        ("Run", f"{results['seconds']:,.0f} s", f"{results['device']}, {drawn(results)}"),
    ]
    return markup.tiles(tiles)


def _curves(curves: Sequence[Curve]) -> str:
    if not curves:
        return ""
    for curve in curves:
        check_same_length(epochs=curve.epochs, fpr95=curve.fpr95, auroc=curve.auroc)
    epochs = [epoch for curve in curves for epoch in curve.epochs]
    x_range = (min(epochs), max(max(epochs), min(epochs) + 1))
    panels = []
    for field, label in (("fpr95", "FPR95 (%), lower is better"), ("auroc", "AUROC (%), higher is better")):
        lines = {c.name: (np.asarray(c.epochs, float), np.asarray(getattr(c, field), float)) for c in curves}
        values = np.concatenate([y for _, y in lines.values()])
        low, high = float(values.min()), float(values.max())
        margin = max(0.08 * (high - low), 1.0)
        limits = (max(low - margin, 0.0), min(high + margin, 100.0))
        chart = charts.line_chart(
            lines, title=label, x_label="Epoch", y_label=label, x_range=x_range, y_range=limits, markers=True
        )
        panels.append(markup.figure("", chart))
    legend = markup.legend((curve.name, charts.series_class(i)) for i, curve in enumerate(curves))
    return markup.section("epochs", "The flow, epoch by epoch", legend + markup.grid(panels, wide=True))


def _roc(scores: Mapping[str, MethodScores]) -> str:
    if not scores:
        return ""
    indices = {method: index for index, method in enumerate(scores)}
    panels = []
    for outlier in unique(name for values in scores.values() for name in values.outliers):
        lines = {
            m: charts.roc_points(np.asarray(v.inlier), np.asarray(v.outliers[outlier]))
            for m, v in scores.items()
            if outlier in v.outliers
        }
        chart = charts.line_chart(
            lines,
            title=f"ROC curves, {outlier}",
            x_label="Outliers accepted (%)",
            y_label="Inliers accepted (%)",
            x_range=(0.0, 100.0),
            y_range=(0.0, 100.0),
            indices=indices,
            guide=95.0,
        )
        panels.append(markup.figure(outlier, chart))
    legend = markup.legend((m, charts.series_class(i)) for m, i in indices.items())
    note = (
        '<p class="hint">FPR95 is read where a curve first reaches the dotted line (95 % of the inliers accepted).</p>'
    )
    return markup.section("roc", "ROC curves per outlier set", legend + note + markup.grid(panels))


def _histograms(scores: Mapping[str, MethodScores]) -> str:
    blocks = []
    for position, (method, values) in enumerate(scores.items()):
        panels = []
        for outlier, array in values.outliers.items():
            title = f"Scores of {method}, {outlier}"
            inlier = np.asarray(values.inlier)
            panels.append(
                markup.figure(outlier, charts.histogram_chart(inlier, np.asarray(array), values.threshold, title=title))
            )
        threshold = "" if values.threshold is None else f' <span class="hint">threshold {values.threshold:.6g}</span>'
        state = " open" if position == 0 else ""
        blocks.append(f"<details{state}><summary>{escape(method)}{threshold}</summary>{markup.grid(panels)}</details>")
    if not blocks:
        return ""
    legend = markup.legend(
        [("inliers", "inlier"), ("outliers", "outlier"), ("threshold: outlier to its right", "threshold")]
    )
    note = '<p class="hint">The first and the last bin also hold everything beyond them.</p>'
    return markup.section("scores", "Scores per method and outlier set", legend + note + "".join(blocks))


def _more_tables(results: Mapping[str, Any]) -> list[Table]:
    return [*_other_rates(results), seconds_table(results)]


def _main_tables(results: Mapping[str, Any]) -> list[Table]:
    return benchmark_tables(results) if "groups" in results else [fpr_auroc_table(results)]


def _other_rates(results: Mapping[str, Any]) -> list[Table]:
    if "groups" in results:  # the rates of OpenOOD are in the main tables
        return [fpr_auroc_table(results), precision_table(results)]
    at_threshold = [threshold_table(results)] if all("outliers_accepted" in row for row in results["rows"]) else []
    return [*at_threshold, precision_table(results), outlier_positive_table(results), openood_table(results)]
