"""Several finished runs on images side by side: mean and spread over seeds, and the flow's curves per epoch."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.images.config import PLACE
from experiments.side_by_side import Run, groups, spread
from quantjax import markdown

EQUAL_WITHIN = (*PLACE, "scores")  # settings that do not make another line
FLOW_ONLY = ("flow", "blocks", "layers", "width", "clamp", "loss", "q", "flow_epochs", "views", "shuffle")


def image_tables(runs: Sequence[Run], epochs: Iterable[int]) -> str:
    """Markdown: FPR95 / AUROC of every method per group of runs, then the flow's curves."""
    parts = [
        "## Methods",
        "FPR95 / AUROC in percent, inlier positive; mean over seeds, ± standard deviation of the average's FPR95.",
        _methods_table(runs),
    ]
    trained = [run for run in runs if run["curve"]]
    if trained:
        parts += [
            "## The flow, epoch by epoch",
            "FPR95 / AUROC in percent, average over the outlier sets; mean ± standard deviation of several seeds. "
            '"Best" is the lowest FPR95 of any epoch, which no rule without outliers could have picked.',
            _curve_table(trained, list(epochs)),
        ]
    return "\n\n".join(parts) + "\n"


def _groups(runs: Sequence[Run], ignored: Sequence[str]) -> list[tuple[str, list[Run]]]:
    return [(label or "all alike", group) for label, group in groups(runs, (*EQUAL_WITHIN, *ignored))]


def _count(runs: Sequence[Run]) -> str:
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''}"


def _methods_table(runs: Sequence[Run]) -> str:
    sets = list(dict.fromkeys(row["outlier"] for run in runs for row in run["rows"]))
    lines = []
    for flow in (False, True):
        chosen = [run for run in runs if any((row["method"] == "quantod") == flow for row in run["rows"])]
        for label, group in _groups(chosen, () if flow else FLOW_ONLY):
            for method in dict.fromkeys(row["method"] for run in group for row in run["rows"]):
                if (method == "quantod") == flow:
                    having = [run for run in group if any(row["method"] == method for row in run["rows"])]
                    lines.append([f"{label} ({_count(having)})", method, *_cells(having, method, sets)])
    return markdown.table(["Settings", "Method", *sets, "Average"], lines)


def _cells(group: Sequence[Run], method: str, sets: Sequence[str]) -> list[str]:
    rows = [row for run in group for row in run["rows"] if row["method"] == method]
    cells = []
    for name in sets:
        own = [row for row in rows if row["outlier"] == name]
        means = [statistics.fmean(row[key] for row in own) for key in ("fpr95", "auroc")] if own else []
        cells.append(" / ".join(f"{mean:.2f}" for mean in means) or "–")
    return [*cells, _pair([_average(run["rows"], method) for run in group])]


def _curve_table(runs: Sequence[Run], epochs: Sequence[int]) -> str:
    shown = [e for e in epochs if any(e in run["curve"] for run in runs)]
    lines = []
    for label, group in _groups(runs, ("flow_epochs",)):
        reached = sorted({e for run in group for e in run["curve"]})
        points = {
            e: [(r["curve"][e]["fpr95"], r["curve"][e]["auroc"]) for r in group if e in r["curve"]] for e in reached
        }
        best = min((statistics.fmean(fpr for fpr, _ in pairs), e) for e, pairs in points.items())
        cells = [_pair(points[e]) if e in points else "–" for e in shown]
        lines.append([f"{label} ({_count(group)})", *cells, f"{best[0]:.2f} in epoch {best[1]}"])
    return markdown.table(["Settings", *(f"epoch {e}" for e in shown), "best FPR95"], lines)


def _pair(pairs: Sequence[tuple[float, float]]) -> str:
    return f"{spread([fpr for fpr, _ in pairs])} / {statistics.fmean(auroc for _, auroc in pairs):.2f}"


def _average(rows: Sequence[Mapping[str, Any]], method: str) -> tuple[float, float]:
    own = [row for row in rows if row["method"] == method]
    return statistics.fmean(r["fpr95"] for r in own), statistics.fmean(r["auroc"] for r in own)
