"""Figures, drawn with matplotlib: FPR95 beside AUROC, bands of one standard deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.papers.plan import AVERAGE, SHOWN, Plan, Value

FORMATS = ("svg", "pdf", "png")
SIZE = (8.0, 3.2)  # inches
STYLE: dict[str, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def draw(plan: Plan, values: Sequence[Value], path: Path) -> list[Path]:
    """Write the figure as path.svg, .pdf and .png; the files."""
    import matplotlib

    with matplotlib.rc_context({"backend": "agg", "svg.hashsalt": "", **STYLE}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE, layout="constrained")
        measures = plan.cells[0]
        for axes, measure in zip(figure.subplots(1, len(measures)), measures, strict=True):
            own = [value for value in values if value.place.measure == measure and value.values]
            DRAWINGS[plan.drawing or ""](axes, plan, own)
            axes.set_ylabel(f"{SHOWN[measure]} (%, inlier positive)")
        _legend(figure)
        figure.suptitle(f"{plan.title} ({plan.source})", fontsize=9)
        files = [path.with_suffix(f".{kind}") for kind in FORMATS]
        for file in files:
            figure.savefig(file, dpi=200, metadata={"Date": None} if file.suffix == ".svg" else None)
    return files


def _levels(axes: Any, plan: Plan, own: Sequence[Value]) -> None:
    """A curve per outlier set over the lines."""
    labels = [line.label for line in plan.lines]
    for column in dict.fromkeys(value.place.column for value in own):
        points = [value for value in own if value.place.column == column]
        where = [labels.index(value.line) for value in points]
        style = {"color": "black", "linewidth": 2.0} if column == AVERAGE else {}
        _curve(axes, where, points, column, **style)
    axes.set_xticks(range(len(labels)), [label.removeprefix("q = ") for label in labels])
    axes.set_xlabel("q")


def _epochs(axes: Any, plan: Plan, own: Sequence[Value]) -> None:
    """A curve per line over epochs."""
    for line in plan.lines:
        points = [value for value in own if value.line == line.label and value.place.epoch is not None]
        _curve(axes, [value.place.epoch for value in points], points, line.label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch of the flow")


def _bars(axes: Any, plan: Plan, own: Sequence[Value]) -> None:
    """A bar per line, the paper's number as a mark where it has one."""
    labels = [line.label for line in plan.lines]
    for value in own:
        place = labels.index(value.line)
        axes.bar(place, statistics.fmean(value.values), yerr=_deviation(value), color=f"C{place // 2}", width=0.7)
        if value.published is not None:
            axes.plot(place, value.published, "k_", markersize=14, label="published")
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")


DRAWINGS = {"levels": _levels, "epochs": _epochs, "bars": _bars}


def _curve(axes: Any, where: Sequence[Any], points: Sequence[Value], label: str, **style: Any) -> None:
    means = [statistics.fmean(value.values) for value in points]
    [line] = axes.plot(where, means, marker="o", markersize=3, label=label, **style)
    spreads = [_deviation(value) for value in points]
    if any(spreads):
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1.0, 1.0))
        axes.fill_between(where, low, high, alpha=0.2, color=line.get_color(), linewidth=0)


def _deviation(value: Value) -> float:
    return statistics.stdev(value.values) if len(value.values) > 1 else 0.0


def _legend(figure: Any) -> None:
    found: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if found:
        figure.legend(found.values(), found.keys(), loc="outside right center", frameon=False)
