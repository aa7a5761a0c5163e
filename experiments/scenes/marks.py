"""What a detector of unknown objects marks in scenes: parts with their boxes, and pictures of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quantjax.atomic import replaced_file

LARGEST = 5  # parts that are described
OPACITY = 0.6


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
    predictor: Any, detector: Any, paths: Sequence[Path], pictures: Sequence[tuple[Path, Path]] | None
) -> Iterator[dict[str, Any] | str]:
    """One plain dict per scene, or a sentence for one that could not be read or whose `pictures` not be written."""
    from quantjax.data.images import read_image

    targets: Sequence[tuple[Path, Path] | None] = [None] * len(paths) if pictures is None else pictures
    for path, files in zip(paths, targets, strict=True):
        try:
            image = read_image(path)
            prediction = predictor.predict(image)
            written = {} if files is None else draw(files, image, prediction.outlier)
        except (ValueError, OSError) as error:
            yield str(error)
            continue
        count, largest = parts(prediction.outlier)
        yield {
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
