"""Several finished runs on scenes side by side, in the layout of the paper's Tables 2 and 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from experiments.side_by_side import Run, groups, over_seeds, spread
from quantjax import markdown


def scene_tables(runs: Sequence[Run]) -> str:
    """Markdown: AP / FPR95 / AUROC of each variant and method, then mIoU; runs that differ in the seed are one line."""
    datasets = list(dict.fromkeys(row["dataset"] for run in runs for row in run["rows"]))
    lines, segmentors = [], []
    for label, group in _groups(runs):
        for variant, method in dict.fromkeys((row["variant"], row["method"]) for run in group for row in run["rows"]):
            having = [run for run in group if any(_is(row, variant, method) for row in run["rows"])]
            cells = [_cell(having, variant, method, dataset) for dataset in datasets]
            lines.append([f"{variant} {method}{label}", _seeds(having), *cells])
        names = list(dict.fromkeys(name for run in group for name, value in run["miou"].items() if value is not None))
        found = [f"{name} {_miou(group, name)}" for name in names]
        if not names:  # nothing was trained
            continue
        segmentors.append([f"{group[0]['config']['variant']}{label}", _seeds(group), ", ".join(found)])
    rates = "AP / FPR95 / AUROC in percent, outlier positive, all labelled pixels pooled; mean ± deviation of seeds."
    miou = "mIoU in percent on the inlier test scenes, before and after the second stage."
    unknown = markdown.table(["Method", "seeds", *datasets], lines)
    known = markdown.table(["Variant", "seeds", "mIoU"], segmentors)
    return "\n\n".join(["## Unknown objects", rates, unknown, "## Known classes", miou, known]) + "\n"


def _groups(runs: Sequence[Run]) -> list[tuple[str, Sequence[Run]]]:
    """Runs of one variant whose settings agree, under a label of what tells them from the others."""
    found = groups(runs, ("segmentor", "methods", "baselines", "detector"), apart="variant")
    return [(f", {label}" if label else "", group) for label, group in found]


def _seeds(group: Sequence[Run]) -> str:
    return str(len({run["config"]["seed"] for run in group}))


def _miou(group: Sequence[Run], name: str) -> str:
    return spread(over_seeds([run for run in group if name in run["miou"]], lambda run: run["miou"][name]))


def _is(row: Mapping[str, Any], variant: str, method: str) -> bool:
    return (row["variant"], row["method"]) == (variant, method)


def _cell(group: Sequence[Run], variant: str, method: str, dataset: str) -> str:
    def of(run: Run) -> list[Mapping[str, Any]]:
        return [row for row in run["rows"] if _is(row, variant, method) and row["dataset"] == dataset]

    having = [run for run in group if of(run)]
    values = [over_seeds(having, partial(_value, of, key)) for key in ("ap", "fpr95", "auroc")]
    return " / ".join(map(spread, values)) if having else "–"


def _value(of: Callable[[Run], list[Mapping[str, Any]]], key: str, run: Run) -> float:
    return float(of(run)[0][key])
