"""Several finished runs on images side by side: mean and spread over seeds, and the flow's curves per epoch."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.images.config import OF_THE_FLOW, PLACE, PUBLISHED
from experiments.side_by_side import Run, groups, over_seeds, spread
from quantjax import markdown

EQUAL_WITHIN = (*PLACE, "scores", "detector")  # settings that do not make another line
KEYS = ("fpr95", "auroc")


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
    seeds = len({run["config"]["seed"] for run in runs})
    again = "" if seeds == len(runs) else f" of {seeds} seed{'s' if seeds > 1 else ''}"
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''}{again}"


def _methods_table(runs: Sequence[Run]) -> str:
    sets = list(dict.fromkeys(row["outlier"] for run in runs for row in run["rows"]))
    lines = []
    for flow in (False, True):
        chosen = [run for run in runs if any((row["method"] == PUBLISHED) == flow for row in run["rows"])]
        for label, group in _groups(chosen, () if flow else OF_THE_FLOW):
            for method in dict.fromkeys(row["method"] for run in group for row in run["rows"]):
                if (method == PUBLISHED) == flow:
                    having = [run for run in group if any(row["method"] == method for row in run["rows"])]
                    lines.append([f"{label} ({_count(having)})", method, *_cells(having, method, sets)])
    return markdown.table(["Settings", "Method", *sets, "Average"], lines)


def _cells(group: Sequence[Run], method: str, sets: Sequence[str]) -> list[str]:
    cells = []
    for name in sets:
        having = [run for run in group if _rows(run, method, name)]
        means = [statistics.fmean(_over_seeds(having, method, key, name)) for key in KEYS] if having else []
        cells.append(" / ".join(f"{mean:.2f}" for mean in means) or "–")
    return [*cells, _pair(*(_over_seeds(group, method, key) for key in KEYS))]


def _rows(run: Run, method: str, name: str | None = None) -> list[Mapping[str, Any]]:
    """Of one method, on one outlier set or on all."""
    return [row for row in run["rows"] if row["method"] == method and name in (None, row["outlier"])]


def _over_seeds(group: Sequence[Run], method: str, key: str, name: str | None = None) -> list[float]:
    return over_seeds(group, lambda run: statistics.fmean(row[key] for row in _rows(run, method, name)))


def _curve_table(runs: Sequence[Run], epochs: Sequence[int]) -> str:
    shown = [e for e in epochs if any(e in run["curve"] for run in runs)]
    lines = []
    for label, group in _groups(runs, ("flow_epochs",)):
        reached = sorted({e for run in group for e in run["curve"]})
        points = {e: [_at_epoch(group, e, key) for key in KEYS] for e in reached}
        best = min((statistics.fmean(fpr), e) for e, (fpr, _) in points.items())
        cells = [_pair(*points[e]) if e in points else "–" for e in shown]
        lines.append([f"{label} ({_count(group)})", *cells, f"{best[0]:.2f} in epoch {best[1]}"])
    return markdown.table(["Settings", *(f"epoch {e}" for e in shown), "best FPR95"], lines)


def _at_epoch(group: Sequence[Run], epoch: int, key: str) -> list[float]:
    return over_seeds([run for run in group if epoch in run["curve"]], lambda run: run["curve"][epoch][key])


def _pair(fpr95: Sequence[float], auroc: Sequence[float]) -> str:
    return f"{spread(fpr95)} / {statistics.fmean(auroc):.2f}"
