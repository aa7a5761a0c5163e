"""Readers of driving data sets in the layouts they are published in; each returns `ScenePairs`.

Inlier sets: CamVid (11 classes) and Cityscapes (19). Evaluation sets: RoadAnomaly, Fishyscapes Lost and Found,
SegmentMeIfYouCan's AnomalyTrack and ObstacleTrack.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from quantjax.data.listing import images_in, images_matching
from quantjax.data.pairs import Pair, ScenePairs, table
from quantjax.rows import IGNORED

CAMVID_CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
# The 19 evaluated classes in the order of their training ids, each with its id in labelIds files (Cordts et al. 2016).
CITYSCAPES_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
ANOMALY = table({0: 0, 1: 1, IGNORED: IGNORED})
_OBSTACLES_LEFT_OUT = ("validation_19", *(f"validation_{k}" for k in range(21, 30)))


def camvid(folder: Path, split: str, height: int | None = None) -> ScenePairs:
    """CamVid as SegNet released it (Badrinarayanan et al. 2017): `{split}/NAME.png` and `{split}annot/NAME.png`.

    Images may be of any format. 11 classes; the file value 11 ("unlabelled") is ignored.
    """
    labels = folder / f"{split}annot"
    pairs = [Pair(file, labels / f"{file.stem}.png", file.stem) for file in images_in(folder / split)]
    values = {k: k for k in range(len(CAMVID_CLASSES))} | {11: IGNORED, IGNORED: IGNORED}
    return ScenePairs(complete(pairs, folder), table(values), CAMVID_CLASSES, height)


def cityscapes(folder: Path, split: str, height: int | None = None) -> ScenePairs:
    """Cityscapes (Cordts et al. 2016): `leftImg8bit/{split}/CITY/..._leftImg8bit.png` with `gtFine` labels, 19 classes.

    Reads `..._gtFine_labelTrainIds.png` where they were made, else the published `..._gtFine_labelIds.png`.
    """
    files = images_matching(folder / "leftImg8bit" / split, "*/*_leftImg8bit.*")
    names = [file.stem.removesuffix("_leftImg8bit") for file in files]
    truth = folder / "gtFine" / split

    def labelled(kind: str) -> list[Pair]:
        names_of = zip(files, names, strict=True)
        return [Pair(file, truth / file.parent.name / f"{name}_gtFine_{kind}.png", name) for file, name in names_of]

    training = labelled("labelTrainIds")
    if all(pair.label.is_file() for pair in training):
        values = {k: k for k in range(len(CITYSCAPES_IDS))} | {IGNORED: IGNORED}
        return ScenePairs(complete(training, folder), table(values), tuple(CITYSCAPES_IDS), height)
    values = {k: IGNORED for k in (*range(34), IGNORED)}
    values |= {value: k for k, value in enumerate(CITYSCAPES_IDS.values())}
    return ScenePairs(complete(labelled("labelIds"), folder), table(values), tuple(CITYSCAPES_IDS), height)


def road_anomaly(folder: Path, split: str, height: int | None = None) -> ScenePairs:
    """RoadAnomaly (Lis et al. 2019): `frames/NAME.jpg` and `frames/NAME.labels/labels_semantic.png`, 60 scenes.

    File values: 0 is no anomaly, 1 and 2 are anomalies.
    """
    listed = folder / "frame_list.json"
    files = (
        [folder / "frames" / name for name in _frame_list(listed)] if listed.is_file() else images_in(folder / "frames")
    )
    pairs = [Pair(file, file.with_suffix(".labels") / "labels_semantic.png", file.stem) for file in files]
    return ScenePairs(complete(pairs, folder), table({0: 0, 1: 1, 2: 1, IGNORED: IGNORED}), height=height)


def fishyscapes(folder: Path, split: str, height: int | None = None) -> ScenePairs:
    """The 100 public scenes of Fishyscapes Lost and Found (Blum et al. 2021), in either of its two layouts.

    - `fishyscapes_lostandfound/NNNN_ID_labels.png` with `laf_images/ID_leftImg8bit.png`
    - `dataset_FishyLAF/labels/val/ID_fishy-labels.png` with
      `dataset_LostAndFound/leftImg8bit/{train,test}/SCENE/ID_leftImg8bit.png`
    """
    flat = images_matching(folder / "fishyscapes_lostandfound", "*_labels.png")
    if flat:
        ids = [file.name.removesuffix("_labels.png").partition("_")[2] for file in flat]
        found = {file.name: file for file in images_matching(folder / "laf_images", "*_leftImg8bit.*")}
        place = folder / "laf_images"
    else:
        flat = images_matching(folder / "dataset_FishyLAF" / "labels" / "val", "*_fishy-labels.png")
        ids = [file.name.removesuffix("_fishy-labels.png") for file in flat]
        place = folder / "dataset_LostAndFound" / "leftImg8bit"
        found = {file.name: file for file in images_matching(place, "*/*/*_leftImg8bit.*")}
    stems = {name.rpartition(".")[0]: file for name, file in found.items()}
    images = [stems.get(f"{name}_leftImg8bit", place / f"{name}_leftImg8bit.png") for name in ids]
    pairs = [Pair(*files) for files in zip(images, flat, ids, strict=True)]
    return ScenePairs(complete(pairs, folder), ANOMALY, height=height)


def anomaly_track(folder: Path, split: str, height: int | None = None) -> ScenePairs:
    """The public validation scenes of SegmentMeIfYouCan's AnomalyTrack (Chan et al. 2021): `images`, `labels_masks`."""
    return _track(folder, (), height)


def obstacle_track(folder: Path, split: str, height: int | None = None) -> ScenePairs:
    """The public validation scenes of SegmentMeIfYouCan's ObstacleTrack (Chan et al. 2021): `images`, `labels_masks`.

    The benchmark's own tool leaves ten near-duplicates out; so does this.
    """
    return _track(folder, _OBSTACLES_LEFT_OUT, height)


def _track(folder: Path, left_out: tuple[str, ...], height: int | None) -> ScenePairs:
    files = [file for file in images_in(folder / "images") if file.name.startswith("validation")]
    files = [file for file in files if not file.name.startswith(left_out)] if left_out else files
    labels = folder / "labels_masks"
    pairs = [Pair(file, labels / f"{file.stem}_labels_semantic.png", file.stem) for file in files]
    return ScenePairs(complete(pairs, folder), ANOMALY, height=height)


def complete(pairs: Sequence[Pair], folder: Path) -> Sequence[Pair]:
    """The pairs themselves, all files present.

    Raises:
        ValueError: there is no pair.
        FileNotFoundError: an image is without its label, or a label without its image.
    """
    if not pairs:
        raise ValueError(f"{folder} holds no labelled image of this split; check that it was unpacked whole")
    _all_there([pair.label for pair in pairs], "an image without its label: {} is missing")
    _all_there([pair.image for pair in pairs], "a label without its image: {} is missing")
    return pairs


def _all_there(files: Iterable[Path], message: str) -> None:
    missing = [file for file in files if not file.is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise FileNotFoundError(message.format(missing[0]) + more + "; unpack the data set again, whole")


def _frame_list(file: Path) -> list[str]:
    try:
        names = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON list of image names ({error}); download it again") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{file} must be a JSON list of image names; download it again")
    return sorted(names)
