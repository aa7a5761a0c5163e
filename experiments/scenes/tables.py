"""Several finished runs on scenes side by side, in the layout of the paper's Tables 2 and 3."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.side_by_side import Run, groups, spread
from quantjax import markdown


def scene_tables(runs: Sequence[Run]) -> str:
    """Markdown: AP / FPR95 / AUROC of each variant and method, then mIoU; runs that differ in the seed are one line."""
    datasets = list(dict.fromkeys(row["dataset"] for run in runs for row in run["rows"]))
    lines, segmentors = [], []
    for label, group in _groups(runs):
        for variant, method in dict.fromkeys((row["variant"], row["method"]) for row in group[0]["rows"]):
            cells = [_cell(group, variant, method, dataset) for dataset in datasets]
            lines.append([f"{variant} {method}{label}", _seeds(group), *cells])
        names = list(dict.fromkeys(name for run in group for name in run["miou"]))
        found = [f"{name} {spread([run['miou'][name] for run in group])}" for name in names]
        segmentors.append([f"{group[0]['config']['variant']}{label}", _seeds(group), ", ".join(found)])
    rates = "AP / FPR95 / AUROC in percent, outlier positive, all labelled pixels pooled; mean ± deviation of seeds."
    miou = "mIoU in percent on the inlier test scenes, before and after the second stage."
    unknown = markdown.table(["Method", "seeds", *datasets], lines)
    known = markdown.table(["Variant", "seeds", "mIoU"], segmentors)
    return "\n\n".join(["## Unknown objects", rates, unknown, "## Known classes", miou, known]) + "\n"


def _groups(runs: Sequence[Run]) -> list[tuple[str, Sequence[Run]]]:
    """Runs of one variant whose settings agree, under a label of what tells them from the others."""
    found = groups(runs, ("segmentor", "methods", "baselines"), apart="variant")
    return [(f", {label}" if label else "", group) for label, group in found]


def _seeds(group: Sequence[Run]) -> str:
    return str(len({run["seed"] for run in group}))


def _cell(group: Sequence[Run], variant: str, method: str, dataset: str) -> str:
    rows = [
        row
        for run in group
        for row in run["rows"]
        if (row["variant"], row["method"], row["dataset"]) == (variant, method, dataset)
    ]
    return " / ".join(spread([row[key] for row in rows]) for key in ("ap", "fpr95", "auroc")) if rows else "–"
