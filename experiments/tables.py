"""A paper's tables and figures, of the runs that they need; or several finished runs side by side.

    python -m experiments.tables --table quantod-1 --figure quantod-2 --workdir runs --data-dir DATA --seeds 0 1 2
    python -m experiments.tables runs/quantod-cifar10-* --output runs/tables.md

The first carries out what is missing in the workdir, goes on where it was stopped, and writes runs/tables/table-NAME
and figure-NAME as .md, .tex, .csv and .json, a figure also as .svg, .pdf and .png, the paper's own numbers beside ours.
What stands behind -- are flags of experiments.quantod for all runs, --weights DATA/{inlier}_{backbone}_seed{seed}.pth
say. A set or a file of weights that is not there leaves its cells empty, with the reason.

The second: runs whose settings differ in the seed alone are one line. Runs of experiments.uem get tables of their own.
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
from experiments.papers.quantod import FIGURES, TABLES
from experiments.run_log import FILE, flow_epochs
from experiments.scenes.tables import scene_tables
from experiments.terminal import lasting_streams
from quantjax.atomic import write_text

STOPPED = "\nstopped; the same command goes on"


@lasting_streams()
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = sys.argv[1:] if argv is None else argv
    cut = given.index("--") if "--" in given else len(given)
    options, flags = parser().parse_args(given[:cut]), given[cut + 1 :]
    if options.list:
        return show_list()
    if options.table or options.figure:
        return report_errors(lambda: reproduce(options, flags), "--batch-size", stopped=STOPPED)
    return report_errors(lambda: run(options, flags), "the number of runs", stopped="\nstopped")


def parser() -> argparse.ArgumentParser:
    """Of what stands before --."""
    found = argparse.ArgumentParser(
        prog="python -m experiments.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("runs", nargs="*", type=Path, help="folders of finished runs")
    found.add_argument("--output", type=Path, help="write the tables of finished runs there too (Markdown)")
    epochs = [1, 2, 3, 5, 10, 25, 50]
    found.add_argument("--epochs", type=int, nargs="+", default=epochs, help="epochs of finished runs' curves shown")
    found.add_argument("--table", nargs="+", choices=sorted(TABLES), default=[], help="tables of a paper")
    found.add_argument("--figure", nargs="+", choices=sorted(FIGURES), default=[], help="figures of a paper")
    found.add_argument("--list", action="store_true", help="print what --table and --figure have")
    found.add_argument("--workdir", type=Path, default=Path("runs"), help="folder of the runs, and of tables/")
    found.add_argument("--data-dir", type=Path, help="folder that holds the published archives, unpacked")
    found.add_argument("--seeds", type=int, nargs="+", default=[0], help="a run each, where a seed decides anything")
    found.add_argument("--smoke", action="store_true", help="the smallest runs, on bundled images: does it all work?")
    return found


def show_list() -> int:
    """Print the tables and figures."""
    for flag, plans in (("--table", TABLES), ("--figure", FIGURES)):
        for name, plan in plans.items():
            print(f"{flag} {name}: {plan.title} ({plan.source}), {len(plan.lines)} lines")
    return 0


def reproduce(options: argparse.Namespace, flags: Sequence[str]) -> int:
    """Carry out the runs that tables and figures need, and write them; 1 when a run failed."""
    from experiments.papers.reproduce import reproduce_all

    if options.runs:
        raise ValueError(f"--table and --figure find their runs themselves: leave out {options.runs[0]}")
    plans = {f"table-{name}": TABLES[name] for name in options.table}
    plans |= {f"figure-{name}": FIGURES[name] for name in options.figure}
    return reproduce_all(
        plans, flags, options.seeds, workdir=options.workdir, data_dir=options.data_dir, smoke=options.smoke
    )


def run(options: argparse.Namespace, flags: Sequence[str]) -> int:
    """Print the tables of finished runs, and write them where asked to."""
    if flags:
        raise ValueError(f"what stands behind -- is for --table and --figure: name one, or drop {flags[0]}")
    if not options.runs:
        raise ValueError("give folders of finished runs, or --table or --figure; --list prints what these have")
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
        found = results | {"rows": rows, "curve": flow_epochs(folder), "folder": folder.name}
        tables_of([found], [1])
    except Exception as error:  # what is missing or of another kind shows in any way
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{file}, or {FILE} beside it, is damaged ({reason}): run it again with --overwrite"
        ) from error
    return found


if __name__ == "__main__":
    sys.exit(main())
