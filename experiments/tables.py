"""Several finished runs side by side: mean and spread over seeds, and the flow's curves per epoch.

    python -m experiments.tables runs/quantod-cifar10-* --output runs/tables.md

Runs whose settings differ in the seed alone are one line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config import PLACE
from experiments.run_log import FILE
from quantjax.report import read_jsonl, write_text

EQUAL_WITHIN = (*PLACE, "seed", "scores", "tensorboard")  # settings that do not make another line


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
        text = tables([read_run(folder) for folder in args.runs], args.epochs)
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
        rows = results["rows"]
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no results.json: finish the run first, with --resume") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error}): run it again with --overwrite") from error
    curve = {r["epoch"]: r for r in read_jsonl(folder / FILE) if r.get("stage") == "flow"}
    return results | {"rows": rows, "curve": curve, "folder": folder.name}


def tables(runs: Sequence[Mapping[str, Any]], epochs: Iterable[int]) -> str:
    """Markdown: average FPR95 / AUROC of every method per group of runs, then the flow's curves."""
    groups = _group(runs)
    keys = sorted({key for run in runs for key in run["config"]} - set(EQUAL_WITHIN))
    differing = [key for key in keys if len({str(group[0]["config"].get(key)) for group in groups}) > 1]
    parts = [
        "## Methods, average over the outlier sets",
        "FPR95 / AUROC in percent, inlier positive; mean over seeds ± standard deviation.",
        _methods_table(groups, differing),
    ]
    if any(run["curve"] for run in runs):
        parts += [
            "## The flow, epoch by epoch",
            "FPR95 / AUROC in percent, average over the outlier sets, mean over seeds. The last epoch is the result; "
            '"best" is the lowest FPR95 of any epoch, which no rule without outliers could have picked.',
            _curve_table(groups, differing, list(epochs)),
        ]
    return "\n\n".join(parts) + "\n"


def _group(runs: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        identity = {key: value for key, value in run["config"].items() if key not in EQUAL_WITHIN}
        groups.setdefault(json.dumps(identity, sort_keys=True), []).append(run)
    return list(groups.values())


def _label(group: Sequence[Mapping[str, Any]], differing: Sequence[str]) -> str:
    config = group[0]["config"]
    text = ", ".join(f"{key} {_short(config.get(key))}" for key in differing) or "these settings"
    return f"{text} ({len(group)} run{'s' if len(group) > 1 else ''})"


def _short(value: Any) -> str:
    return Path(value).name if isinstance(value, str) else str(value)


def _methods_table(groups: Sequence[Sequence[Mapping[str, Any]]], differing: Sequence[str]) -> str:
    lines = []
    for group in groups:
        for method in dict.fromkeys(row["method"] for run in group for row in run["rows"]):
            averages = [
                _average(run["rows"], method) for run in group if any(r["method"] == method for r in run["rows"])
            ]
            cell = " / ".join(_spread([a[i] for a in averages]) for i in (0, 1))
            lines.append([_label(group, differing), method, cell])
    return _markdown(["Settings", "Method", "FPR95 / AUROC"], lines)


def _average(rows: Sequence[Mapping[str, Any]], method: str) -> tuple[float, float]:
    own = [row for row in rows if row["method"] == method]
    return statistics.fmean(r["fpr95"] for r in own), statistics.fmean(r["auroc"] for r in own)


def _curve_table(groups: Sequence[Sequence[Mapping[str, Any]]], differing: Sequence[str], epochs: Sequence[int]) -> str:
    shown = [e for e in epochs if any(e in run["curve"] for group in groups for run in group)]
    lines = []
    for group in groups:
        curves = [run["curve"] for run in group if run["curve"]]
        if not curves:
            continue
        common = sorted(set.intersection(*(set(c) for c in curves)))
        mean = {e: [statistics.fmean(c[e][key] for c in curves) for key in ("fpr95", "auroc")] for e in common}
        best = min((rates[0], e) for e, rates in mean.items())[1]
        cells = [f"{mean[e][0]:.2f} / {mean[e][1]:.2f}" if e in mean else "–" for e in shown]
        lines.append([_label(group, differing), *cells, f"{best}: {mean[best][0]:.2f}"])
    return _markdown(["Settings", *(f"epoch {e}" for e in shown), "best"], lines)


def _spread(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.2f} ± {statistics.stdev(values):.2f}" if len(values) > 1 else f"{mean:.2f}"


def _markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [list(header), ["---"] * len(header), *map(list, lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
