"""A fitted detector of unknown objects in scenes that was never trained: a frozen backbone and a method on its patches.

It decides pixel by pixel, as `scenes.SceneDetector`, by the scores of patches averaged over overlapping windows, and
knows no classes: ScenePrediction.label is 0 everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from quantjax import methods, patches, trees
from quantjax.checks import check_choice, check_interval, check_shape
from quantjax.data.pairs import resized
from quantjax.detector.common import LARGEST, PRECISIONS, check_common, check_numbers, from_content, to_content
from quantjax.detector.scene_export import write_programs
from quantjax.detector.scenes import (
    ScenePredictor,
    check_overrides,
    check_windows,
    make_predictor,
)
from quantjax.extractors import FEATURE_BACKBONES
from quantjax.inference import sliding
from quantjax.parallel import replicate
from quantjax.patches import PatchMethod, PatchNetwork
from quantjax.types import Array, Preprocessing, PyTree

ONE_CLASS = ("scene",)
LARGEST_WINDOW = 640  # pixels a side of a window that is chosen here: attention grows with its square


class PatchDetector(NamedTuple):
    """Everything that decides about the pixels of a scene."""

    backbone: str
    """Name in extractors.FEATURE_BACKBONES"""
    overrides: Mapping[str, Any]
    """Attributes in which the weights differ from the name's"""
    variables: PyTree
    """Of the backbone"""
    preprocessing: Preprocessing
    """Of the images in [0, 1]"""
    maps: tuple[str, ...]
    """Names of the backbone's maps that are read"""
    method: PatchMethod
    """What scores the patches of these maps, at every scale"""
    params: PyTree
    """See patches.FittedPatches"""
    window: tuple[int, int]
    """Height and width of what the backbone sees at once, pixels"""
    stride: tuple[int, int]
    """Pixels between windows"""
    threshold: float
    """On the score; unknown iff score > threshold. NaN until it is calibrated"""
    calibration: Mapping[str, Any]
    """As of SceneDetector"""
    class_names: tuple[str, ...] = ONE_CLASS
    """One name, of what is not unknown"""
    precision: str = "float32"
    """Of the backbone, a key of PRECISIONS"""
    image_height: int | None = None
    """As of SceneDetector"""
    scales: tuple[float, ...] = (1.0,)
    """See patches.PatchNetwork"""

    @property
    def score(self) -> str:
        """Name of the method."""
        return self.method.name


def fit_patches(
    method: str,
    backbone: str,
    scenes: Sequence[Any],
    *,
    variables: PyTree,
    overrides: Mapping[str, Any] | None = None,
    preprocessing: Preprocessing | None = None,
    maps: Sequence[str] | None = None,
    scales: Sequence[float] = (1.0,),
    settings: methods.Settings | None = None,
    labelled: bool = False,
    image_height: int | None = None,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    precision: str = "float32",
    batch_size: int = 8,
    devices: Sequence[Any] | None = None,
    report: patches.rows.Report | None = None,
) -> PatchDetector:
    """Fit a method to the patches of a few inlier scenes; `calibrate` sets the threshold, on other ones.

    scenes are a sequence of images uint8 [H, W, 3], or of {"image": ...}, whose labels are read where labelled asks for
    Gaussians of single classes: uint8 [H, W], 255 where a pixel is ignored. backbone is a name of
    extractors.FEATURE_BACKBONES; variables and overrides are those of convert.read_backbone. `maps` names what is read
    of it, by default the last quarter of its blocks, of windows as they are or, with scales, also smaller or larger;
    settings replace the method's defaults.

    image_height resizes every scene first. The window is by default as large as the smallest scene, at most 640 pixels
    a side, in whole patches; the stride half of that. Raises ValueError for an unknown backbone, map, method or
    setting, a method that reads more than features, and scenes of another shape or too small.
    """
    check_choice("backbone", backbone, FEATURE_BACKBONES)
    check_choice("precision", precision, PRECISIONS)
    shown: Any = _AtHeight(scenes, image_height, labelled)
    window = _window_of(shown, FEATURE_BACKBONES[backbone].stride) if window is None else window
    stride = (max(window[0] // 2, 1), max(window[1] // 2, 1)) if stride is None else stride
    network = patches.backbone(
        backbone, maps, overrides=overrides, preprocessing=preprocessing, scales=scales, dtype=PRECISIONS[precision][0]
    )
    patches.check_method(method)
    rows = patches.patch_rows(
        network, variables, shown, window=window, batch_size=batch_size, labelled=labelled, devices=devices,
        report=report, products=PRECISIONS[precision][1],
    )  # fmt: skip
    fitted = patches.fit_patches(method, rows, settings=settings)
    detector = PatchDetector(
        backbone=backbone,
        overrides=dict(overrides or {}),
        variables=jax.tree.map(np.asarray, variables),
        preprocessing=network.preprocessing,
        maps=network.maps,
        method=fitted.method,
        params=jax.tree.map(np.asarray, fitted.params),
        window=(window[0], window[1]),
        stride=(stride[0], stride[1]),
        threshold=math.nan,
        calibration={},
        precision=precision,
        image_height=image_height,
        scales=network.scales,
    )
    check(detector._replace(threshold=0.0))
    return detector


class _AtHeight:
    """Scenes at one height; labels, where there are any, follow."""

    def __init__(self, scenes: Sequence[Any], height: int | None, labelled: bool):
        self.scenes, self.height, self.labelled = scenes, height, labelled

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Any:
        scene = self.scenes[index]
        image = np.asarray(scene["image"] if isinstance(scene, Mapping) else scene)
        check_shape("a scene", image, "[H, W, 3]")
        if image.dtype != np.uint8:
            raise ValueError(f"a scene must be uint8 [H, W, 3], got {image.dtype}; give its pixels in 0..255")
        label = scene.get("label") if self.labelled and isinstance(scene, Mapping) else None
        if self.height is not None:
            row = resized({"image": image, "label": image[..., 0] if label is None else label, "name": ""}, self.height)
            image, label = row["image"], None if label is None else row["label"]
        return {"image": image} if label is None else {"image": image, "label": label}


def _window_of(scenes: Sequence[Any], cell: int) -> tuple[int, int]:
    """In whole cells, what fits into every one of a few scenes, up to LARGEST_WINDOW."""
    if not len(scenes):
        raise ValueError("scenes must hold at least one inlier scene, got none")
    few = sorted({round(i) for i in np.linspace(0, len(scenes) - 1, 8)})
    height, width = np.min([scenes[i]["image"].shape[:2] for i in few], axis=0)
    rows, columns = (max(min(int(side), LARGEST_WINDOW) // cell, 1) * cell for side in (height, width))
    return rows, columns


def predictor(detector: PatchDetector, *, batch_size: int = 8, devices: Sequence[Any] | None = None) -> ScenePredictor:
    """As scenes.predictor: functions of one scene uint8 [H, W, 3] of any size."""
    check(detector)
    run = scene_maps(detector, batch_size=batch_size, devices=devices)
    return make_predictor(run, detector.score, detector.threshold, detector.image_height)


def scene_maps(
    detector: PatchDetector, *, batch_size: int = 8, devices: Sequence[Any] | None = None
) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
    """run(image uint8 [H, W, 3]) -> {detector.score: [H, W], "prediction": zeros [H, W]}, for segmentation.evaluate.

    The image is scored at its own size, whatever the detector's height.
    """
    fn, finish, weights = parts(detector)
    sizes: dict[str, Any] = {"window": detector.window, "stride": detector.stride, "batch_size": batch_size}
    return partial(sliding(fn, finish, **sizes, devices=devices), replicate(weights, devices))


def parts(detector: PatchDetector) -> tuple[Callable[..., Any], Callable[..., Any], tuple[PyTree, PyTree]]:
    """(windows, finish, weights) for inference.sliding; see patches.scoring."""
    fn = patches.windows(network(detector), detector.method, PRECISIONS[detector.precision][1])
    return fn, patches.finish(detector.method.name), (detector.variables, detector.params)


def network(detector: PatchDetector) -> PatchNetwork:
    """The frozen network that the detector's variables belong to."""
    return patches.backbone(
        detector.backbone,
        detector.maps,
        overrides=detector.overrides,
        preprocessing=detector.preprocessing,
        scales=detector.scales,
        dtype=PRECISIONS[detector.precision][0],
    )


def export(detector: PatchDetector, folder: str | Path, **options: Any) -> None:
    """Write the detector as programs, see scene_export."""
    check(detector)
    fn, finish, weights = parts(detector)
    write_programs(detector, folder, partial(fn, weights), lambda scores: finish((scores,)), (1,), **options)


def content(detector: PatchDetector) -> tuple[dict[str, Any], PyTree]:
    """(detector.json, arrays) of a detector that `check` accepts."""
    shared = to_content(detector)
    maps = [
        {"name": name, "settings": dict(settings), "classes": classes}
        for name, settings, classes in zip(*detector.method[1:], strict=True)
    ]
    return {
        **shared,
        "backbone": shared["backbone"] | {"overrides": dict(detector.overrides)},
        "window": list(detector.window),
        "stride": list(detector.stride),
        "image_height": detector.image_height,
        "maps": list(detector.maps),
        "scales": list(detector.scales),
        "score": {"name": detector.method.name, "maps": maps},
    }, {"backbone": detector.variables, "patches": detector.params}


def restore(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> PatchDetector:
    """Undo `content`; raises ValueError, TypeError, KeyError or AttributeError when it says something else."""
    overrides = content["backbone"]["overrides"]
    maps = content["score"]["maps"]
    for one in maps:
        check_numbers("score", one["settings"], lists=("permutations",))
        check_interval("classes of a map", one["classes"], 1, LARGEST)
    method = PatchMethod(
        str(content["score"]["name"]),
        tuple(str(one["name"]) for one in maps),
        tuple(dict(one["settings"]) for one in maps),
        tuple(int(one["classes"]) for one in maps),
    )
    detector = PatchDetector(
        overrides={name: tuple(v) if isinstance(v, list) else v for name, v in overrides.items()},
        variables={},
        maps=tuple(map(str, content["maps"])),
        scales=tuple(map(float, content["scales"])),
        method=method,
        params={},
        window=tuple(content["window"]),
        stride=tuple(content["stride"]),
        image_height=content["image_height"],
        **from_content(content),
    )
    _check_method(detector)
    found = trees.restore(arrays, template(detector))
    return detector._replace(variables=found["backbone"], params=found["patches"])


def template(detector: PatchDetector) -> PyTree:
    """{"backbone", "patches"}: the shapes and dtypes that a detector's arrays must have; they fill no memory."""
    module = FEATURE_BACKBONES[detector.backbone].build(**detector.overrides)
    side = 4 * FEATURE_BACKBONES[detector.backbone].stride
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)

    def maps(variables: PyTree, images: Array) -> dict[str, Array]:
        return patches.named_features(network(detector), None, variables, images)

    widths = [found.shape[-1] for found in jax.eval_shape(maps, variables, images).values()]
    return {"backbone": variables, "patches": patches.template(detector.method, widths)}


def check(detector: PatchDetector) -> None:
    """Raise ValueError unless names are known, numbers are sane and finite and every array has its place and shape."""
    _check_method(detector)
    check_common(detector)
    trees.check({"backbone": detector.variables, "patches": detector.params}, template(detector))


def _check_method(detector: PatchDetector) -> None:
    """What must come before building networks from what a file says."""
    check_choice("backbone", detector.backbone, FEATURE_BACKBONES)
    check_choice("precision", detector.precision, PRECISIONS)
    check_overrides(detector.overrides)
    check_windows(detector)
    method = patches.check_method(detector.method.name)
    for settings in detector.method.settings:
        methods.check_settings(method, settings)
    if len(detector.class_names) != 1:
        raise ValueError(f"class_names must be one, as no class is told from another, got {len(detector.class_names)}")
    named = patches.scaled_names(network(detector))
    if named != detector.method.maps:
        raise ValueError(f"the method must be fitted to maps {', '.join(named)}, got {', '.join(detector.method.maps)}")
