"""What a detector of unknown objects marks in scenes: parts with their boxes, and pictures of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from quantjax.atomic import replaced_file

LARGEST = 5  # parts that are described
OPACITY = 0.6
AHEAD = 4  # scenes that are decoded while the networks see those before
BOX = ("left", "top", "right", "bottom")
COLUMNS: dict[str, type] = {
    "path": str, "unknown_percent": float, "parts": int,
    "largest_pixels": int, **{f"largest_{side}": int for side in BOX},
    "highest_score": float, "threshold": float, "mask": str, "overlay": str,
}  # fmt: skip


def parts(outlier: np.ndarray) -> tuple[int, list[dict[str, Any]]]:
    """(number of 8-connected parts of a mask [H, W], the largest: pixels and box left, top, right, bottom).

    Boxes end before right and bottom, so right - left is the width.
    """
    from scipy import ndimage

    numbered, count = ndimage.label(outlier, structure=np.ones((3, 3)))
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(numbered)
    order = np.argsort(-sizes, kind="stable")[:LARGEST]
    return count, [
        {"pixels": int(sizes[i]), "box": [boxes[i][1].start, boxes[i][0].start, boxes[i][1].stop, boxes[i][0].stop]}
        for i in order
    ]


def mark(
    predictor: Any, detector: Any, files: Iterable[Path | str], pictures: Iterable[tuple[Path, Path]] | None
) -> Iterator[dict[str, Any] | str]:
    """One plain dict per scene, or a sentence for one that could not be read or whose `pictures` not be written.

    A sentence among the files is handed on; the next scenes are decoded meanwhile.
    """
    from quantjax.data.ahead import ahead

    targets: Iterator[tuple[Path, Path] | None] = repeat(None) if pictures is None else iter(pictures)
    for read in ahead(_read, files, AHEAD):
        target = None if isinstance(read, str) else next(targets)
        try:
            yield read if isinstance(read, str) else _marked(predictor, detector, *read, target)
        except (ValueError, OSError) as error:
            yield str(error)


def _read(file: Path | str) -> tuple[Path, np.ndarray | Exception] | str:
    from quantjax.data.images import read_image

    if isinstance(file, str):
        return file
    try:
        return file, read_image(file)
    except (ValueError, OSError) as error:
        return file, error


def _marked(
    predictor: Any, detector: Any, path: Path, image: np.ndarray | Exception, files: tuple[Path, Path] | None
) -> dict[str, Any]:
    if isinstance(image, Exception):
        raise image
    prediction = predictor.predict(image)
    written = {} if files is None else draw(files, image, prediction.outlier)
    count, largest = parts(prediction.outlier)
    return {
        "path": str(path),
        "unknown_percent": 100.0 * float(prediction.outlier.mean()),
        "parts": count,
        "largest": largest,
        "highest_score": float(prediction.score.max()),
        "threshold": detector.threshold,
    } | written


def plan(paths: Sequence[Path], output: Path) -> list[tuple[Path, Path]]:
    """(mask, overlay) for each scene, named after it; ValueError when one of them is itself a scene."""
    taken: dict[str, int] = {}
    scenes = {path.resolve() for path in paths}
    planned = []
    for path in paths:
        number = taken[path.stem.lower()] = taken.get(path.stem.lower(), 0) + 1
        name = path.stem if number == 1 else f"{path.stem}~{number}"
        files = output / f"{name}_mask.png", output / f"{name}_overlay.png"
        for file in files:
            if file.resolve() in scenes:
                raise ValueError(f"--output would overwrite {file}, which is one of the images: give another folder")
        planned.append(files)
    return planned


def draw(files: tuple[Path, Path], image: np.ndarray, outlier: np.ndarray) -> dict[str, str]:
    """Write a mask, 255 on unknown pixels and 0 elsewhere, and the scene with unknown pixels in orange."""
    from PIL import Image

    from quantjax.report.maps import ORANGE

    mixed = (1.0 - OPACITY) * image + OPACITY * np.array(ORANGE)
    pictures = np.where(outlier, 255, 0), np.where(outlier[..., None], mixed, image)
    for file, picture in zip(files, pictures, strict=True):
        with replaced_file(file) as temporary:
            Image.fromarray(picture.astype(np.uint8)).save(temporary, "PNG")
    return {"mask": str(files[0]), "overlay": str(files[1])}


def to_line(row: dict[str, Any]) -> str:
    """A row of `mark` for people."""
    line = f"{row['unknown_percent']:6.2f} % unknown in {row['parts']} parts"
    if row["largest"]:
        first = row["largest"][0]
        left, top, right, bottom = first["box"]
        line += f", the largest {first['pixels']} pixels at x {left} to {right}, y {top} to {bottom}"
    return f"{line}  {row['path']}"


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `mark` as a line of a table: of its parts the largest alone."""
    plain = {name: value for name, value in row.items() if name != "largest"}
    for part in row["largest"][:1]:
        box = {f"largest_{side}": value for side, value in zip(BOX, part["box"], strict=True)}
        plain |= {"largest_pixels": part["pixels"], **box}
    return plain


def outlying(row: dict[str, Any]) -> tuple[float, float]:
    """Scenes are ordered by the share of unknown pixels, then by the highest score; NaN is the highest."""
    highest = row["highest_score"]
    return row["unknown_percent"], highest if highest == highest else float("inf")
