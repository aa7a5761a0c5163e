"""docs/images/overview.png: what the detectors of the two bundled runs say, scene by scene and image by image.

    python -m experiments.quantod --workdir runs/ && python -m experiments.uem --workdir runs/
    python -m benchmarks.picture --quantod runs/quantod-digits-<hash> --uem runs/uem-streets-g-d-<hash> \
        --output docs/images/overview.png                                   (2 cores: half a minute)

Nothing is picked by its looks: the scenes are the first of the evaluation set, the images the first test digits and the
first image of each outlier set. Wrong decisions are shown, and called wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.scenes.config import DEMONSTRATION
from experiments.scenes.sets import PASTE_SEED
from quantjax import detector
from quantjax.bundled import images as bundled
from quantjax.data.mix import PastedScenes
from quantjax.data.objects import open_objects
from quantjax.data.scenes import open_scenes
from quantjax.report import maps

SCENES, DIGITS = 2, 6
SCORES = {"id": "ID: segmentor", "ood": "OoD: module", "lr": "LR: ratio of both"}
RIGHT, WRONG = "#1a7f37", "#cf222e"
WIDTH, DPI = 10.0, 100  # inches, pixels per inch
COLOURS = 128  # of the file, which stays small with them


class Judged(NamedTuple):
    """A bundled image and what the detector says."""

    group: str
    """The set that it comes from."""
    image: np.ndarray
    """[H, W, 3] uint8"""
    score: float
    """Higher = more outlying."""
    said: str
    """"inlier: <class>" or "outlier"."""
    right: bool


class Scene(NamedTuple):
    """A bundled scene with an unseen object, and what the detector says."""

    image: np.ndarray
    """[H, W, 3] uint8"""
    label: np.ndarray
    """[H, W] 0 inlier, 1 object, 255 ignored"""
    scores: Mapping[str, np.ndarray]
    """Name in SCORES -> [H, W], higher = more outlying."""
    outlier: np.ndarray
    """[H, W] bool, the decision by "lr"."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quantod", type=Path, required=True, help="folder of a finished run of experiments.quantod")
    parser.add_argument("--uem", type=Path, required=True, help="folder of a finished run of experiments.uem")
    parser.add_argument("--output", type=Path, required=True, help="the picture, .png")
    options = parser.parse_args(argv)
    images, scenes = (detector.load(run / "detector") for run in (options.quantod, options.uem))
    draw(judged_scenes(scenes), scenes, judged_images(images), images, options.output)
    print(f"{options.output}: {options.output.stat().st_size / 1000:.0f} kB")


def judged_images(known: detector.Detector) -> list[Judged]:
    """The first test digits and the first image of each outlier set, judged."""
    size = known.image_size
    rows = [(bundled.INLIER, image) for image in bundled.digits("test", size)[0][:DIGITS]]
    rows += [(name, bundled.SETS[name].make("test", size)[0][0]) for name in bundled.BUNDLED_OUTLIERS]
    groups, images = zip(*rows, strict=True)
    found = detector.predict(known, np.stack(images))
    return [
        Judged(group, image, float(score), "outlier" if out else f"inlier: {known.class_names[label]}",
               bool(out) == (group != bundled.INLIER))
        for group, image, out, label, score in zip(
            groups, images, found.outlier, found.label, found.score, strict=True
        )
    ]  # fmt: skip


def judged_scenes(known: detector.SceneDetector) -> list[Scene]:
    """The first scenes of the evaluation set streets_mix, judged."""
    unseen = open_objects("bundled", None, "test")
    share = DEMONSTRATION["object_share"]
    mixed = PastedScenes(open_scenes("streets", None, "test"), unseen, PASTE_SEED, share=share)
    predictors = {name: detector.predictor(known._replace(score=name)) for name in SCORES}
    scenes = []
    for index in range(SCENES):
        row = mixed[index]
        found: dict[str, Any] = {name: one.predict(row["image"]) for name, one in predictors.items()}
        scores = {name: one.score for name, one in found.items()}
        scenes.append(Scene(row["image"], row["label"], scores, found["lr"].outlier))
    return scenes


def draw(scenes: Sequence[Scene], marked: Any, images: Sequence[Judged], judged: Any, output: Path) -> None:
    """Write the picture; of the detectors `marked` and `judged` the thresholds are named."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    heights = 0.7 + 0.83 * len(scenes), 2.1
    figure = Figure((WIDTH, sum(heights)), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    _draw_scenes(upper, scenes, marked)
    _draw_images(lower, images, judged)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    output.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(output, optimize=True)


def _draw_scenes(figure: Any, scenes: Sequence[Scene], known: Any) -> None:
    kept = known.calibration["promised_tpr"]
    _title(figure, f"Scenes: unknown where LR > {_number(known.threshold)} (set to keep {kept:g} % of known pixels)")
    examples = [maps.Example(str(i), scene.image, scene.label, scene.scores) for i, scene in enumerate(scenes)]
    limits = maps.score_limits(examples)
    axes = figure.subplots(len(scenes), 3 + len(SCORES), squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.79, bottom=0.02, wspace=0.03, hspace=0.06)
    for row, scene in zip(axes, scenes, strict=True):
        shown = [scene.image, maps.label_overlay(scene.image, scene.label)]
        shown += [maps.colour_map(scene.scores[name], *limits[name]) for name in SCORES]
        shown.append(maps.label_overlay(scene.image, scene.outlier.astype(np.uint8)))
        for cell, picture in zip(row, shown, strict=True):
            _show(cell, picture)
    for cell, name in zip(axes[0], ("scene", "true object", *SCORES.values(), "decision"), strict=True):
        cell.set_title(name, fontsize=9, pad=3)


def _draw_images(figure: Any, images: Sequence[Judged], known: Any) -> None:
    rule, kept = f"{known.score}'s score > {_number(known.threshold)}", known.calibration["promised_tpr"]
    _title(figure, f"Images: outlier where {rule} (set to keep {kept:g} % of known images)")
    axes = figure.subplots(1, len(images))
    figure.subplots_adjust(left=0.01, right=0.99, top=0.74, bottom=0.26, wspace=0.08)
    for cell, one in zip(axes, images, strict=True):
        _show(cell, one.image)
        cell.set_title(one.group.replace("_", "\n", 1).replace("_", " "), fontsize=8, pad=3)
        said = one.said if one.right else f"{one.said}\n(wrong)"
        cell.set_xlabel(f"{_number(one.score)}\n{said}", fontsize=8, labelpad=3, color=RIGHT if one.right else WRONG)


def _title(figure: Any, text: str) -> None:
    figure.text(0.01, 0.97, text, fontsize=10.5, weight="bold", ha="left", va="top")


def _number(value: float) -> str:
    if abs(value) >= 1e5:
        return f"{value:.0e}".replace("e+", "e")
    return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def _show(cell: Any, picture: np.ndarray) -> None:
    cell.imshow(picture)
    cell.set_xticks([])
    cell.set_yticks([])
    for side in cell.spines.values():
        side.set_color("#bbbbbb")


if __name__ == "__main__":
    main()
