"""Several finished runs side by side: mean and spread over seeds, and the flow's curves per epoch.

    python -m experiments.tables runs/quantod-cifar10-* --output runs/tables.md

Runs whose settings differ in the seed alone are one line. Runs of experiments.uem get tables of their own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import markdown
from experiments.images.config import PLACE
from experiments.run_log import FILE
from experiments.scenes.tables import scene_tables
from quantjax.report import read_jsonl, write_text

EQUAL_WITHIN = (*PLACE, "seed", "scores")  # settings that do not make another line
FLOW_ONLY = ("flow", "blocks", "layers", "width", "clamp", "loss", "q", "flow_epochs", "views", "shuffle")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--output", type=Path, help="write the tables there too (Markdown)")
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=[1, 2, 3, 5, 10, 25, 50], help="epochs of the curves shown"
    )
    args = parser.parse_args(argv)
    try:
        runs = [read_run(folder) for folder in args.runs]
        scenes = [run for run in runs if run["positive_class"] == "outlier"]
        images = [run for run in runs if run["positive_class"] == "inlier"]
        parts = [tables(images, args.epochs)] if images else []
        text = "\n".join([*parts, scene_tables(scenes)] if scenes else parts)
        if args.output:
            write_text(args.output, text)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text)
    return 0


def read_run(folder: Path) -> dict[str, Any]:
    """results.json of a run with the curve of its metrics.jsonl under "curve"."""
    file = folder / "results.json"
    try:
        results = json.loads(file.read_text())
        rows, _ = results["rows"], results["positive_class"]
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no results.json: finish the run first, with --resume") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error}): run it again with --overwrite") from error
    curve = {r["epoch"]: r for r in read_jsonl(folder / FILE) if r.get("stage") == "flow"}
    return results | {"rows": rows, "curve": curve, "folder": folder.name}


def tables(runs: Sequence[Mapping[str, Any]], epochs: Iterable[int]) -> str:
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


def _groups(runs: Sequence[Mapping[str, Any]], ignored: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    """Runs by a label of the settings that differ among them, the ignored ones left out."""
    keys = sorted({key for run in runs for key in run["config"]} - {*EQUAL_WITHIN, *ignored})
    differing = [key for key in keys if len({str(run["config"].get(key)) for run in runs}) > 1]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        label = ", ".join(f"{key} {run['config'].get(key)}" for key in differing)
        groups.setdefault(label or "all alike", []).append(run)
    return groups


def _methods_table(runs: Sequence[Mapping[str, Any]]) -> str:
    sets = list(dict.fromkeys(row["outlier"] for run in runs for row in run["rows"]))
    lines = []
    for flow in (False, True):
        chosen = [run for run in runs if any((row["method"] == "quantod") == flow for row in run["rows"])]
        for label, group in _groups(chosen, () if flow else FLOW_ONLY).items():
            for method in dict.fromkeys(row["method"] for run in group for row in run["rows"]):
                if (method == "quantod") == flow:
                    lines.append([f"{label} ({_count(group, method)})", method, *_cells(group, method, sets)])
    return markdown.table(["Settings", "Method", *sets, "Average"], lines)


def _count(group: Sequence[Mapping[str, Any]], method: str) -> str:
    count = sum(any(row["method"] == method for row in run["rows"]) for run in group)
    return f"{count} run{'s' if count > 1 else ''}"


def _cells(group: Sequence[Mapping[str, Any]], method: str, sets: Sequence[str]) -> list[str]:
    rows = [row for run in group for row in run["rows"] if row["method"] == method]
    cells = []
    for name in sets:
        own = [row for row in rows if row["outlier"] == name]
        means = [statistics.fmean(row[key] for row in own) for key in ("fpr95", "auroc")] if own else []
        cells.append(" / ".join(f"{mean:.2f}" for mean in means) or "–")
    averages = [_average(run["rows"], method) for run in group if any(r["method"] == method for r in run["rows"])]
    return [*cells, _pair(averages)]


def _curve_table(runs: Sequence[Mapping[str, Any]], epochs: Sequence[int]) -> str:
    shown = [e for e in epochs if any(e in run["curve"] for run in runs)]
    lines = []
    for label, group in _groups(runs, ("flow_epochs",)).items():
        reached = sorted({e for run in group for e in run["curve"]})
        points = {
            e: [(r["curve"][e]["fpr95"], r["curve"][e]["auroc"]) for r in group if e in r["curve"]] for e in reached
        }
        best = min((statistics.fmean(fpr for fpr, _ in pairs), e) for e, pairs in points.items())
        cells = [_pair(points[e]) if e in points else "–" for e in shown]
        lines.append(
            [f"{label} ({len(group)} run{'s' if len(group) > 1 else ''})", *cells, f"{best[0]:.2f} in epoch {best[1]}"]
        )
    return markdown.table(["Settings", *(f"epoch {e}" for e in shown), "best FPR95"], lines)


def _pair(pairs: Sequence[tuple[float, float]]) -> str:
    return f"{markdown.spread([fpr for fpr, _ in pairs])} / {statistics.fmean(auroc for _, auroc in pairs):.2f}"


def _average(rows: Sequence[Mapping[str, Any]], method: str) -> tuple[float, float]:
    own = [row for row in rows if row["method"] == method]
    return statistics.fmean(r["fpr95"] for r in own), statistics.fmean(r["auroc"] for r in own)


if __name__ == "__main__":
    sys.exit(main())
