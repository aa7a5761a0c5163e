"""Anomaly Mix: objects pasted into street scenes, for training and as an evaluation set with unseen objects.

As UEM does it (Nayal, Shoeb and Guney 2024, after Tian et al., ECCV 2022): the masked pixels of an object replace those
of the scene at a uniformly random place, without blending, and carry the label 254.
"""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np

from quantjax.checks import check_interval
from quantjax.data.cutouts import Objects
from quantjax.data.pairs import Scenes
from quantjax.rows import IGNORED, PASTED, ObjectRow, SceneRow

Share = tuple[float, float]


def paste(
    scene: SceneRow, thing: ObjectRow, rng: np.random.Generator, *, share: Share | None = None, strict: bool = False
) -> SceneRow:
    """The scene with the object in it: a new row, its label 254 where the object is (ignored pixels included).

    The place is uniform over all places where the whole object lies inside the scene. share = (low, high) resizes the
    object first, its longer side to a uniformly drawn share of the scene's height, and never beyond the scene; None
    keeps its size, as the paper does. An object larger than the scene leaves it alone: the very same row is returned
    (`paste(...) is scene`), or, when strict, it is an error.

    Raises:
        ValueError: strict, and the object is larger than the scene; a share outside (0, 1].
    """
    height, width = scene["label"].shape
    if share is not None:
        thing = _scaled(thing, height, width, rng, share)
    mask = thing["mask"]
    room = height - mask.shape[0], width - mask.shape[1]
    if min(room) < 0:
        if strict:
            raise ValueError(_too_large(thing, scene))
        return scene
    top, left = (int(rng.integers(0, free + 1)) for free in room)
    place = (slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1]))
    image, label = scene["image"].copy(), scene["label"].copy()
    image[place][mask] = thing["image"][mask]
    label[place][mask] = PASTED
    return {"image": image, "label": label, "name": scene["name"]}


class PastedScenes:
    """Scenes with one unseen object each, to evaluate on: labels 0 inlier, 1 object, 255 ignored.

    Scene i always gets the same object at the same place: both are functions of (seed, i). With a probability under 1
    some scenes stay without an object. share as in `paste`.
    """

    class_names: tuple[str, ...] = ()

    def __init__(
        self, scenes: Scenes, objects: Objects, seed: int = 0, probability: float = 1.0, share: Share | None = None
    ):
        check_interval("probability", probability, 0.0, 1.0)
        check_not_empty(scenes, objects)
        self.scenes, self.objects = scenes, objects
        self.seed, self.probability, self.share = seed, probability, share

    def __len__(self) -> int:
        """N, the number of scenes."""
        return len(self.scenes)

    def __getitem__(self, index: SupportsIndex) -> SceneRow:
        """Scene `index` with its object; ValueError when that is larger than the scene and share is None."""
        scene = self.scenes[index]
        rng = np.random.default_rng([self.seed, index.__index__()])
        if rng.random() < self.probability:
            thing = self.objects[int(rng.integers(len(self.objects)))]
            scene = paste(scene, thing, rng, share=self.share, strict=True)
        return {"image": scene["image"], "label": anomalies(scene["label"]), "name": scene["name"]}


def anomalies(label: np.ndarray) -> np.ndarray:
    """Labels with 254 for pasted pixels -> 1 there, 255 kept, 0 elsewhere; same shape, uint8."""
    return np.where(label == IGNORED, IGNORED, label == PASTED).astype(np.uint8)


def check_not_empty(scenes: Scenes, objects: Objects | None) -> None:
    """Raise ValueError when there is no scene, or no object to paste."""
    if len(scenes) == 0:
        raise ValueError("scenes must hold at least one scene, got none; check the folder or the split")
    if objects is not None and len(objects) == 0:
        raise ValueError("objects must hold at least one object, got none; check the folder, split or excluded classes")


def check_some_fit(scenes: Scenes, objects: Objects, tries: int = 8) -> None:
    """Raise ValueError when none of a few objects, spread over the set, fits into the first scene."""
    scene = scenes[0]
    things = [objects[i] for i in np.linspace(0, len(objects) - 1, min(tries, len(objects))).astype(int).tolist()]
    if not any(all(np.less_equal(thing["mask"].shape, scene["label"].shape)) for thing in things):
        raise ValueError(_too_large(things[0], scene))


def _too_large(thing: ObjectRow, scene: SceneRow) -> str:
    return (
        f"object {thing['name']} must fit into scene {scene['name']}: "
        f"the scene is {_size(scene['label'])}, the object {_size(thing['mask'])}; "
        "use larger scenes, smaller objects, or share to resize objects to a part of the scene"
    )


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]} x {array.shape[1]}"


def _scaled(thing: ObjectRow, height: int, width: int, rng: np.random.Generator, share: Share) -> ObjectRow:
    from PIL import Image

    low, high = share
    if not 0 < low <= high <= 1:
        raise ValueError(f"share must be two numbers with 0 < low <= high <= 1, got {share}")
    old = thing["mask"].shape
    factor = min(rng.uniform(low, high) * height / max(old), width / old[1])
    size = max(round(old[1] * factor), 1), max(round(old[0] * factor), 1)
    image = np.asarray(Image.fromarray(thing["image"]).resize(size, Image.Resampling.BILINEAR))
    mask = np.asarray(Image.fromarray(thing["mask"].astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0
    return {"image": image, "mask": mask, "name": thing["name"], "class_name": thing["class_name"]}
