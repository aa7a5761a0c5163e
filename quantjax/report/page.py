"""report.html: one self-contained page with the tables, curves and settings of a run, in light and dark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from quantjax.checks import check_finite, check_same_length
from quantjax.report import charts
from quantjax.report.style import STYLE
from quantjax.report.tables import (
    Table,
    aupr_table,
    fpr_auroc_table,
    outlier_positive_table,
    seconds_table,
    share,
    unique,
)


class MethodScores(NamedTuple):
    """What the histograms and ROC curves of one method are drawn from; higher = more outlying."""

    inlier: np.ndarray  # [N]
    outliers: Mapping[str, np.ndarray]  # outlier set -> [M]
    threshold: float | None = None  # outlier iff score > threshold


class Curve(NamedTuple):
    """Progress of one training of the flow."""

    name: str  # legend text, e.g. "quantile, q = 0.05"
    epochs: Sequence[int]  # [E]
    fpr95: Sequence[float]  # [E] percent, inlier positive
    auroc: Sequence[float]  # [E] percent


def render(results: Mapping[str, Any], scores: Mapping[str, MethodScores], curves: Sequence[Curve]) -> str:
    """The page as text; raises ValueError for scores that are empty or not finite."""
    for method, values in scores.items():
        for name, array in {"inlier": values.inlier, **values.outliers}.items():
            if not len(array):
                raise ValueError(f"scores[{method!r}] must hold at least one score per set, got none for {name!r}")
            check_finite(f"scores[{method!r}], {name}", np.asarray(array))
    sections = [
        _tiles(results),
        _section("results", fpr_auroc_table(results).title, _table(fpr_auroc_table(results))),
        _curves(curves),
        _roc(scores),
        _histograms(scores),
        _section("more", "More tables", "".join(map(_titled_table, _more_tables(results)))),
        _settings(results),
    ]
    title = f"Outlier detection, inliers: {results['inlier']}"
    text = re.sub("`([^`]+)`", r"<code>\1</code>", escape(str(results.get("note") or "")))
    note = f'<p class="note">{text}</p>' if text else ""
    header = f"<header><h1>{escape(title)}</h1>{note}</header>"
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{viewport}<title>{escape(title)}</title>'
    style = f"<style>{STYLE}</style>"
    body = f"<body><main>{header}{''.join(sections)}</main></body>"
    return f'<!doctype html>\n<html lang="en">\n<head>{head}{style}</head>\n{body}\n</html>\n'


def _tiles(results: Mapping[str, Any]) -> str:
    averages = {}
    for method in unique(row["method"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["method"] == method]
        averages[method] = [float(np.mean([row[key] for row in rows])) for key in ("fpr95", "auroc")]
    best = min(averages, key=lambda method: averages[method][0])
    calibration = results["calibration"]
    tiles = [
        (f"Lowest average FPR95: {best}", f"{averages[best][0]:.2f} %", f"AUROC {averages[best][1]:.2f} %"),
        ("Inlier accuracy", f"{results['accuracy']:.2f} %", f"inliers: {results['inlier']}"),
        ("Inliers accepted", share(calibration["achieved_tpr"]), f"promised {share(calibration['promised_tpr'])}"),
        ("Run", f"{results['seconds']:,.0f} s", f"{results['device']}, seed {results['seed']}"),
    ]
    cards = "".join(
        f'<div class="tile"><div class="name">{escape(name)}</div><div class="value">{escape(value)}</div>'
        f'<div class="name">{escape(detail)}</div></div>'
        for name, value, detail in tiles
    )
    return f'<div class="tiles">{cards}</div>'


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
        panels.append(_figure("", chart))
    legend = _legend((curve.name, charts.series_class(i)) for i, curve in enumerate(curves))
    return _section("epochs", "The flow, epoch by epoch", legend + _grid(panels, wide=True))


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
        panels.append(_figure(outlier, chart))
    legend = _legend((m, charts.series_class(i)) for m, i in indices.items())
    note = (
        '<p class="hint">FPR95 is read where a curve first reaches the dotted line (95 % of the inliers accepted).</p>'
    )
    return _section("roc", "ROC curves per outlier set", legend + note + _grid(panels))


def _histograms(scores: Mapping[str, MethodScores]) -> str:
    blocks = []
    for position, (method, values) in enumerate(scores.items()):
        panels = []
        for outlier, array in values.outliers.items():
            title = f"Scores of {method}, {outlier}"
            inlier = np.asarray(values.inlier)
            panels.append(
                _figure(outlier, charts.histogram_chart(inlier, np.asarray(array), values.threshold, title=title))
            )
        threshold = "" if values.threshold is None else f' <span class="hint">threshold {values.threshold:.6g}</span>'
        state = " open" if position == 0 else ""
        blocks.append(f"<details{state}><summary>{escape(method)}{threshold}</summary>{_grid(panels)}</details>")
    if not blocks:
        return ""
    legend = _legend([("inliers", "inlier"), ("outliers", "outlier"), ("threshold: outlier to its right", "threshold")])
    note = '<p class="hint">The first and the last bin also hold everything beyond them.</p>'
    return _section("scores", "Scores per method and outlier set", legend + note + "".join(blocks))


def _more_tables(results: Mapping[str, Any]) -> list[Table]:
    return [aupr_table(results), outlier_positive_table(results), seconds_table(results)]


def _settings(results: Mapping[str, Any]) -> str:
    groups = {key: results[key] for key in ("calibration", "config", "versions")}
    known = {"rows", "accuracy", "note", *groups}
    groups["run"] = {key: value for key, value in results.items() if key not in known}
    blocks = []
    for name, values in groups.items():
        pairs = values.items() if isinstance(values, Mapping) else [(name, values)]
        lines = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(_text(v))}</td></tr>" for k, v in pairs)
        block = f'<h3>{escape(name.capitalize())}</h3><div class="scroll"><table class="pairs">{lines}</table></div>'
        blocks.append(f"<div>{block}</div>")
    return _section("settings", "Settings and versions", f'<div class="columns">{"".join(blocks)}</div>')


def _titled_table(table: Table) -> str:
    return f"<h3>{escape(table.title)}</h3>{_table(table)}"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in table.header)
    lines = []
    for cells, marks in zip(table.cells, table.best, strict=True):
        values = "".join(
            f"<td{' class=best' if mark else ''}>{escape(c)}</td>" for c, mark in zip(cells[1:], marks[1:], strict=True)
        )
        lines.append(f"<tr><th>{escape(cells[0])}</th>{values}</tr>")
    grid = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    return f'<p class="hint">{escape(table.note)}</p>{grid}'


def _section(name: str, title: str, body: str) -> str:
    return f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>'


def _grid(panels: Sequence[str], wide: bool = False) -> str:
    return f'<div class="grid-of-charts{" wide" if wide else ""}">{"".join(panels)}</div>'


def _figure(caption: str, chart: str) -> str:
    title = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{title}{chart}</figure>"


def _legend(entries: Iterable[tuple[str, str]]) -> str:
    items = []
    for name, kind in entries:
        swatch = f'<svg class="swatch" viewBox="0 0 22 10"><path class="line {kind}" d="M1 5H21"/></svg>'
        items.append(f'<span class="key">{swatch}{escape(name)}</span>')
    return f'<div class="legend">{"".join(items)}</div>'


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
