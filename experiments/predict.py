"""Inlier or outlier? Apply the detector of a run to image files.

    python -m experiments.predict --run runs/quantod-digits-1a2b3c4d photo.png folder/ 'more/*.jpg'
    find / -name '*.jpg' | python -m experiments.predict --run runs/quantod-digits-1a2b3c4d --csv - > found.csv
    python -m experiments.predict --run runs/uem-streets-g-d-1a2b3c4d --output marked/ scene.png folder/

One line per image: decision, class, confidence, score and threshold, and the p-value (the share of held-out inliers at
least as outlying) where the run kept their scores; for a run of experiments.uem the share of pixels
that are marked unknown, the number of connected parts they form and the box of the largest, and with --output a mask
(255 unknown, 0 known) and an overlay per scene. --json prints one JSON object per line instead, --csv a table, and
--parquet writes a table to a file as well; --top shows the most outlying alone, in order. Files are decoded while the
device works on those before, and no more than a few hundred are held in memory. A few seconds on any machine, most of
them for compilation; how fast it was is said at the end. Exit status: 0 all images judged, 1 some could not be read
(the others are judged) or the output was closed, 2 nothing could be done.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from experiments import sinks
from experiments.detectors import open_detector
from experiments.errors import report_errors
from experiments.inputs import open_inputs
from experiments.terminal import is_lost, lasting_streams

BATCH = 128
WINDOWS = 2  # of a scene at a time
CHUNK = 2 * BATCH  # images that are judged at once, while as many are decoded
COLUMNS: dict[str, type] = {
    "path": str,
    "decision": str,
    "class": str,
    "confidence": float,
    "score": float,
    "threshold": float,
}

Judged = dict[str, Any] | str  # one row, or a sentence about what could not be read


class Judging(NamedTuple):
    """What a kind of detector makes of files, and how it is shown."""

    judged: Iterator[Judged]
    to_line: Callable[[Any], str]
    flat: Callable[[Any], dict[str, Any]]
    """A row as a line of a table"""
    columns: dict[str, type]
    """Of that table"""
    outlying: Callable[[Any], Any]
    """What --top sorts rows by, the largest first"""


class Tally:
    """Counts what is judged, names what is not, and keeps the time."""

    def __init__(self) -> None:
        self.judged = self.unread = 0
        self.start = time.perf_counter()

    def rows(self, judged: Iterable[Judged]) -> Iterator[dict[str, Any]]:
        """The rows; the sentences go to standard error."""
        for row in judged:
            if isinstance(row, str):
                self.unread += 1
                print(f"error: {row}", file=sys.stderr, flush=True)
                continue
            self.judged += 1
            yield row

    def status(self) -> int:
        """The exit status."""
        return 2 if not self.judged else 1 if self.unread else 0

    def speed(self) -> str:
        """How many images in how many seconds."""
        seconds = time.perf_counter() - self.start
        rate = self.judged / max(seconds, 1e-9)
        shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        images = f"{self.judged:,} image{'' if self.judged == 1 else 's'}"
        return f"{images} in {seconds:.1f} s, compilation included: {shown} images/s"


@lasting_streams()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = parse(argv)
    return report_errors(lambda: run(options), "the size of the images", failed=2, stopped="\nstopped")


def run(options: argparse.Namespace) -> int:
    """Judge all images; returns the exit status, which of errors in single ones is not an error here."""
    detector = open_detector(options.run, "--run")
    judging, tally = judge(detector, open_inputs(options.paths, options.output), options.output), Tally()
    rows: Iterable[dict[str, Any]] = tally.rows(judging.judged)
    keeps = options.output is not None or options.parquet is not None
    with nullcontext(None) if options.parquet is None else sinks.parquet(options.parquet, judging.columns) as store:
        if options.top is not None:
            rows = heapq.nlargest(options.top, rows, key=judging.outlying)
        show = shown(options, judging)
        for row in rows:
            show(row)
            if store is not None:
                store(judging.flat(row))
            if is_lost() and not keeps:
                print("stopped: the output was closed, or its disk is full", file=sys.stderr)
                return 1
    if not tally.judged and not tally.unread:
        raise ValueError("the list on standard input names no file")
    print(tally.speed(), file=sys.stderr, flush=True)
    return tally.status()


def shown(options: argparse.Namespace, judging: Judging) -> sinks.Write:
    """What prints a row as the flags say."""
    if not options.csv:
        return sinks.printing(sinks.to_json if options.json else judging.to_line)
    write = sinks.printing_csv(judging.columns)
    return lambda row: write(judging.flat(row))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; malformed flags exit with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run, or of a detector")
    lines = parser.add_mutually_exclusive_group()
    lines.add_argument("--json", action="store_true", help="print one JSON object per image")
    lines.add_argument("--csv", action="store_true", help="print a table of commas, the names of its columns first")
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="write the table there as well (needs pyarrow)")
    parser.add_argument("--top", type=_count, metavar="N", help="only the N most outlying, the most outlying first")
    parser.add_argument("--output", type=Path, help="folder for a mask and an overlay of each scene (runs of uem)")
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="image files, folders, globs; - is a list of them on standard input"
    )
    return parser.parse_args(argv)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def judge(detector: Any, files: Iterator[Path | str], output: Path | None) -> Judging:
    """Rows of a detector of images, or of one of unknown objects in scenes."""
    from quantjax.detector import Detector, predictor

    if not isinstance(detector, Detector):
        from experiments.scenes import marks

        paths = list(files) if output is not None else files
        pictures = None if output is None else marks.plan([p for p in paths if isinstance(p, Path)], output)
        judged = marks.mark(predictor(detector, batch_size=WINDOWS), detector, paths, pictures)
        return Judging(judged, marks.to_line, marks.flat, marks.COLUMNS, marks.outlying)
    if output is not None:
        raise ValueError("--output is for detectors of unknown objects in scenes; this one judges whole images")
    judged = classify(predictor(detector, batch_size=BATCH), detector, files)
    columns = COLUMNS if detector.held_out is None else {**COLUMNS, "p_value": float}
    return Judging(judged, to_line, dict, columns, outlying)


def classify(predictor: Any, detector: Any, files: Iterable[Path | str]) -> Iterator[Judged]:
    """Rows of a detector of images, in the order of the files; the next ones are decoded meanwhile.

    A last handful of images joins the ones before, as a small batch would be compiled for it alone.
    """
    from quantjax.data.ahead import ahead

    read = partial(read_file, size=detector.image_size, short_side=detector.preprocessing.short_side)
    waiting: list[tuple[Path, Any]] = []
    for one in ahead(read, files, CHUNK):
        if isinstance(one, str):
            yield one
            continue
        waiting.append(one)
        if len(waiting) == CHUNK + BATCH:
            yield from predicted(predictor, detector, waiting[:CHUNK])
            del waiting[:CHUNK]
    if waiting:
        yield from predicted(predictor, detector, waiting)


def read_file(file: Path | str, size: int, short_side: int | None = None) -> tuple[Path, Any] | str:
    """(path, image uint8 [size, size, 3]) of a file, or a sentence where it cannot be read."""
    from quantjax.data.images import fit, read_image

    if isinstance(file, str):
        return file
    try:
        return file, fit(read_image(file), size, short_side)
    except (ValueError, OSError) as error:
        return str(error)


def predicted(predictor: Any, detector: Any, read: Sequence[tuple[Path, Any]]) -> Iterator[dict[str, Any]]:
    """One plain dict per image; `class` is the classifier's, which says little about an outlier."""
    import numpy as np

    from quantjax.detector import thresholds

    prediction = predictor.predict(np.stack([image for _, image in read]))
    given = {name: values.tolist() for name, values in prediction._asdict().items() if values is not None}
    bounds = thresholds(detector, prediction.label).tolist()
    for (path, _), threshold, *values in zip(read, bounds, *given.values(), strict=True):
        row = dict(zip(given, values, strict=True))
        yield {
            "path": str(path),
            "decision": "outlier" if row["outlier"] else "inlier",
            "class": detector.class_names[row["label"]],
            "confidence": row["confidence"],
            "score": row["score"],
            "threshold": threshold,
            **({"p_value": row["p_value"]} if "p_value" in row else {}),
        }


def outlying(row: dict[str, Any]) -> float:
    """The score; NaN, an outlier's always, is the highest."""
    return row["score"] if row["score"] == row["score"] else float("inf")


def to_line(row: dict[str, Any]) -> str:
    """A row for people."""
    sign = ">" if row["decision"] == "outlier" else "<="
    judged = f"{row['class']} {100 * row['confidence']:.1f} %"
    named = judged if row["decision"] == "inlier" else f"(nearest class {judged})"
    compared = f"score {row['score']:.5g} {sign} threshold {row['threshold']:.5g}"
    p_value = f"  p {row['p_value']:.2g}" if "p_value" in row else ""
    return f"{row['decision']:8}{named:32} {compared}{p_value}  {row['path']}"


if __name__ == "__main__":
    sys.exit(main())
