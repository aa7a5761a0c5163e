"""How good is a saved detector on other sets? Nothing is fitted: its score and its threshold are what they are.

    python -m experiments.evaluate --detector runs/quantod-digits-1a2b3c4d --inlier mine/ --outliers noise=/path others/
    python -m experiments.evaluate --detector runs/uem-streets-g-d-1a2b3c4d --inlier camvid --outliers road_anomaly

Sets are named as for experiments.quantod and experiments.uem: published ones under --data-dir, bundled ones, or by
their path; of images also NAME=/path. Prints a table of the rates by both conventions, and what the stored threshold
keeps of the inliers and lets pass of the outliers; --output writes results.json, results.md and report.html as runs do.
Without --outliers the threshold alone is judged.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.detectors import open_detector
from experiments.errors import report_errors
from experiments.terminal import lasting_streams

BATCH, WINDOWS = 128, 2  # images, or windows of a scene, at a time


@lasting_streams()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = parse(argv)
    return report_errors(lambda: run(options), "--batch-size", stopped="\nstopped")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; malformed flags exit with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detector", type=Path, required=True, help="folder of a detector, or of a finished run")
    parser.add_argument("--inlier", required=True, metavar="SET", help="inliers, their test split where they have one")
    parser.add_argument("--outliers", nargs="+", default=[], metavar="SET", help="outlier sets")
    parser.add_argument("--data-dir", type=Path, help="folder that holds the published archives, unpacked")
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="of inliers of your own without a split take the 20 %% that a run with them did not train on",
    )
    parser.add_argument("--batch-size", type=int, help=f"images at a time (default: {BATCH}), or windows ({WINDOWS})")
    parser.add_argument("--output", type=Path, help="write results.json, results.md and report.html into that folder")
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> int:
    """Judge the detector, print its table, write its files; returns the exit status."""
    start = time.perf_counter()
    check(options)
    fitted = open_detector(options.detector, "--detector")

    from experiments.progress import Progress
    from quantjax.detector import Detector
    from quantjax.report import to_text

    how = judge_images if isinstance(fitted, Detector) else judge_scenes
    results, write, warnings = how(options, fitted, Progress)
    results |= about(options, fitted, warnings, start)
    for warning in warnings:
        print(warning, file=sys.stderr, flush=True)
    text = to_text(results)
    if options.output is not None:
        write(options.output, results)
    print(text)
    if options.output is not None:
        print(f"results.json, results.md and report.html in {options.output}")
    return 0


def check(options: argparse.Namespace) -> None:
    """Raise ValueError for flags that no evaluation can have, and for an --output that holds something else."""
    from experiments.settings import check_data_dir
    from quantjax.checks import check_interval

    check_data_dir(options)
    if options.batch_size is not None:
        check_interval("--batch-size", options.batch_size, 1, float("inf"))
    if options.output is None:
        return
    if options.output.exists() and not options.output.is_dir():
        raise ValueError(f"--output must be a folder, {options.output} is none")
    taken = [name for name in ("config.json", "detector.json") if (options.output / name).exists()]
    if taken:
        raise ValueError(
            f"--output {options.output} is the folder of a run or of a detector (it holds {taken[0]}), whose results "
            "would be lost: give another folder"
        )


def about(options: argparse.Namespace, fitted: Any, warnings: Sequence[str], start: float) -> dict[str, Any]:
    """The keys of results.json that say what was judged on what, with which versions, and how long it took."""
    from experiments.results import versions
    from quantjax import parallel

    folder = options.detector.resolve()
    name = folder.parent.name if folder.name == "detector" else folder.name
    settings = {
        "detector": name,
        "score": fitted.score,
        "precision": fitted.precision,
        "inlier": options.inlier,
        "outliers": list(options.outliers),
        "held_out": options.held_out,
        "seed": None,
    }
    note = f"The saved detector of {name}, {fitted.score}, judged as it is: nothing was fitted."
    return {
        "inlier": options.inlier,
        "config": settings,
        "versions": versions(),
        "device": parallel.device_summary(),
        "seed": None,
        "seconds": time.perf_counter() - start,
        "note": " ".join([note, *warnings]),
    }


def judge_images(options: argparse.Namespace, fitted: Any, progress: Any) -> tuple[dict[str, Any], Any, list[str]]:
    """(the results of a detector of images, what writes them, warnings)."""
    from experiments.images.saved import judge_sets
    from quantjax.report import write_results

    found = judge_sets(
        fitted,
        options.inlier,
        options.outliers,
        data_dir=options.data_dir,
        held_out=options.held_out,
        batch_size=options.batch_size or BATCH,
        progress=progress,
    )
    return found.results, partial(write_results, scores=found.scores), found.warnings


def judge_scenes(options: argparse.Namespace, fitted: Any, progress: Any) -> tuple[dict[str, Any], Any, list[str]]:
    """(the results of a detector of unknown objects in scenes, what writes them, warnings)."""
    from experiments.scenes.saved import judge_sets
    from quantjax.report import write_scenes

    if options.held_out:
        raise ValueError("--held-out is for images of your own; sets of scenes have splits: leave it out")
    results, examples = judge_sets(
        fitted,
        options.inlier,
        options.outliers,
        data_dir=options.data_dir,
        batch_size=options.batch_size or WINDOWS,
        progress=progress,
    )
    return results, partial(write_scenes, scenes=examples, class_names=fitted.class_names), []


if __name__ == "__main__":
    sys.exit(main())
