"""Several finished runs side by side: mean and spread over seeds, and the flow's curves per epoch.

    python -m experiments.tables runs/quantod-cifar10-* --output runs/tables.md

Runs whose settings differ in the seed alone are one line. Runs of experiments.uem get tables of their own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.errors import report_errors
from experiments.images.tables import image_tables
from experiments.run_log import FILE
from experiments.scenes.tables import scene_tables
from experiments.terminal import lasting_streams
from quantjax.atomic import write_text
from quantjax.report import read_jsonl


@lasting_streams()
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
    options = parser.parse_args(argv)
    return report_errors(lambda: run(options), "the number of runs", stopped="\nstopped")


def run(options: argparse.Namespace) -> int:
    """Print the tables, and write them where asked to."""
    text = tables_of([read_run(folder) for folder in options.runs], options.epochs)
    if options.output:
        write_text(options.output, text)
    print(text)
    return 0


def tables_of(runs: Sequence[dict[str, Any]], epochs: Sequence[int]) -> str:
    """Markdown, of runs on images and of runs on scenes apart."""
    scenes = [run for run in runs if run["positive_class"] == "outlier"]
    images = [run for run in runs if run["positive_class"] == "inlier"]
    parts = [image_tables(images, epochs)] if images else []
    return "\n".join([*parts, scene_tables(scenes)] if scenes else parts)


def read_run(folder: Path) -> dict[str, Any]:
    """results.json of a run with the curve of its metrics.jsonl under "curve"."""
    file = folder / "results.json"
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        rows, _ = results["rows"], results["positive_class"]
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no results.json: finish the run first, with --resume") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error}): run it again with --overwrite") from error
    try:
        curve = {r["epoch"]: r for r in read_jsonl(folder / FILE) if r.get("stage") == "flow" and "fpr95" in r}
        found = results | {"rows": rows, "curve": curve, "folder": folder.name}
        tables_of([found], [1])
    except Exception as error:  # what is missing or of another kind shows in any way
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{file}, or {FILE} beside it, is damaged ({reason}): run it again with --overwrite"
        ) from error
    return found


if __name__ == "__main__":
    sys.exit(main())
