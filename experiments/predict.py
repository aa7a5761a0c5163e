"""Inlier or outlier? Apply the detector of a run to image files.

    python -m experiments.predict --run runs/quantod-digits-1a2b3c4d photo.png folder/
    python -m experiments.predict --run runs/uem-streets-g-d-1a2b3c4d --output marked/ scene.png folder/

One line per image: decision, class, confidence, score and threshold, and the p-value (the share of held-out inliers at
least as outlying) where the run kept their scores; for a run of experiments.uem the share of pixels
that are marked unknown, the number of connected parts they form and the box of the largest, and with --output a mask
(255 unknown, 0 known) and an overlay per scene. --json prints one JSON object per line instead, with more parts.
A few seconds on any machine, most of them for compilation. Exit status: 0 all images judged, 1 some could not be read
(the others are judged) or the output was closed, 2 nothing could be done.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.errors import report_errors
from experiments.terminal import is_lost, lasting_streams

BATCH = 128
WINDOWS = 2  # of a scene at a time
CHUNK = 1024  # images held in memory at a time


@lasting_streams()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = parse(argv)
    return report_errors(lambda: run(options), "the size of the images", failed=2, stopped="\nstopped")


def run(options: argparse.Namespace) -> int:
    """Judge all images; returns the exit status, which of errors in single ones is not an error here."""
    predictor, detector = open_detector(options.run)
    paths, missed = list_images(options.paths, options.output)
    judged, line = judge(predictor, detector, paths, options.output)
    for sentence in missed:
        print(f"error: {sentence}", file=sys.stderr, flush=True)
    unread = 0
    for row in judged:
        if isinstance(row, str):
            unread += 1
            print(f"error: {row}", file=sys.stderr, flush=True)
        else:
            print(json.dumps(row) if options.json else line(row), flush=True)
        if is_lost() and options.output is None:
            print("stopped: the output was closed, or its disk is full", file=sys.stderr)
            return 1
    return 2 if unread == len(paths) else 1 if unread or missed else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; malformed flags exit with status 2."""
    parser = argparse.ArgumentParser(prog="python -m experiments.predict", description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run, or of a detector")
    parser.add_argument("--json", action="store_true", help="print one JSON object per image")
    parser.add_argument("--output", type=Path, help="folder for a mask and an overlay of each scene (runs of uem)")
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="image files, or folders of them")
    return parser.parse_args(argv)


def judge(predictor: Any, detector: Any, paths: Sequence[Path], output: Path | None) -> tuple[Iterator[Any], Any]:
    """(one row per image, or a sentence where it could not be read; what makes a line of a row)."""
    from quantjax.detector import Detector

    if not isinstance(detector, Detector):
        from experiments.scenes import marks

        files = None if output is None else marks.plan(paths, output)
        return marks.mark(predictor, detector, paths, files), marks.to_line
    if output is not None:
        raise ValueError("--output is for detectors of unknown objects in scenes; this one judges whole images")
    return classify(predictor, detector, paths), to_line


def classify(predictor: Any, detector: Any, paths: Sequence[Path]) -> Iterator[dict[str, Any] | str]:
    """Rows of a detector of images; of a chunk first what could not be read."""
    for start in range(0, len(paths), CHUNK):
        images, read, errors = read_images(
            paths[start : start + CHUNK], detector.image_size, detector.preprocessing.short_side
        )
        yield from errors
        if read:
            yield from rows(read, predictor.predict(images), detector)


def open_detector(run: Path) -> tuple[Any, Any]:
    """(predictor, detector) of a run's folder or of a detector's own folder."""
    folder = run if (run / "detector.json").is_file() else run / "detector"
    if not run.is_dir():
        raise FileNotFoundError(f"--run must be the folder of a run, {run} does not exist or is no folder")
    if not (folder / "detector.json").is_file():
        raise FileNotFoundError(f"{run} holds no detector: the run is not finished, or it is another kind of folder")
    from experiments.start import backend
    from quantjax import detector, parallel

    parallel.cores_as_devices()
    backend()
    loaded = detector.load(folder)
    if isinstance(loaded, detector.FeatureDetector):
        raise ValueError(f"the detector in {run} takes features, no images: use it from Python, detector.predict")
    size = BATCH if isinstance(loaded, detector.Detector) else WINDOWS
    return detector.predictor(loaded, batch_size=size), loaded


def list_images(paths: Sequence[Path], output: Path | None = None) -> tuple[list[Path], list[str]]:
    """(files as given, and all images below the folders but `output`, sorted; a sentence for each folder missed).

    A folder is missed in part when files in it look like images and are not read; ValueError when it has no other ones.
    """
    from quantjax.data.images import SUFFIXES
    from quantjax.data.listing import files_in, images_among, unread_sentence

    written = None if output is None else output.resolve()
    files: list[Path] = []
    missed: list[str] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        read, unread = images_among(f for f in files_in(path, deep=True) if written not in f.resolve().parents)
        if not read:
            why = unread_sentence(path, unread) if unread else f"looked for {', '.join(sorted(SUFFIXES))}"
            raise ValueError(f"{path} holds no images ({why}, subfolders included)")
        files += read
        missed += [unread_sentence(path, unread)] if unread else []
    return files, missed


def read_images(paths: Sequence[Path], size: int, short_side: int | None = None) -> tuple[Any, list[Path], list[str]]:
    """(images uint8 [N, size, size, 3], the paths they come from, one error per unreadable file)."""
    import numpy as np

    from quantjax.data.images import fit, read_image

    images, read, errors = [], [], []
    for path in paths:
        try:
            images.append(fit(read_image(path), size, short_side))
            read.append(path)
        except (ValueError, OSError) as error:
            errors.append(str(error))
    return np.stack(images) if images else None, read, errors


def rows(paths: Sequence[Path], prediction: Any, detector: Any) -> Iterator[dict[str, Any]]:
    """One plain dict per image; `class` is the classifier's, which says little about an outlier."""
    from quantjax.detector import thresholds

    given = {name: values.tolist() for name, values in prediction._asdict().items() if values is not None}
    bounds = thresholds(detector, prediction.label).tolist()
    for path, threshold, *values in zip(paths, bounds, *given.values(), strict=True):
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
