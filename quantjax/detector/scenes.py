"""A fitted detector of unknown objects in scenes: segmentor, unknown estimation module, windows, score, threshold.

It decides pixel by pixel: unknown iff score > threshold, whatever the size of the scene. Logits of both heads are
averaged over overlapping windows, the score is made of the averages (Nayal, Shoeb and Güney 2024, arXiv 2409.06424).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from quantjax import segmentation, trees
from quantjax.checks import check_choice, check_interval
from quantjax.data.pairs import resized_image
from quantjax.detector.common import LARGEST, PRECISIONS, check_common
from quantjax.detector.decision import is_outlier
from quantjax.extractors import FEATURE_BACKBONES
from quantjax.extractors.swin import SHIFT_RULES
from quantjax.heads.gmm import GmmSettings, GmmState
from quantjax.inference import sliding
from quantjax.parallel import replicate
from quantjax.scores import Standardisation
from quantjax.segmentation import PREDICTION, SCORES, UNKNOWN_CLASSES, Estimator, Scales, Segmentor, scoring
from quantjax.types import ANY, Array, Preprocessing, PyTree

OVERRIDES = ("grid", "position_rule", "window", "shift")  # attributes that a weight file decides
LARGEST_HEIGHT = 8192  # of a scene
LARGEST_SIDE, LARGEST_GRID, MOST_LAYERS = 4096, 1024, 16  # what a file may ask for
MOST_CLASSES = 255  # labels are uint8


class SceneDetector(NamedTuple):
    """Everything that decides about the pixels of a scene; a head is a mixture, or linear where it is None."""

    backbone: str
    """Name in extractors.FEATURE_BACKBONES"""
    overrides: Mapping[str, Any]
    """Attributes in which the weights differ from the name's, keys of OVERRIDES"""
    channels: int
    """Of the decoder"""
    token_hidden: int
    """Of the decoder"""
    projector: tuple[int, ...]
    """Widths of the estimator's layers"""
    inlier_head: GmmSettings | None
    """K classes"""
    unknown_head: GmmSettings | None
    """Generic inlier, outlier"""
    variables: PyTree
    """{"segmentor", "estimator"}, as in quantjax.segmentation; mixtures need no memory bank"""
    preprocessing: Preprocessing
    """Of the images in [0, 1]"""
    class_names: tuple[str, ...]
    """[K]"""
    window: tuple[int, int]
    """Height and width of what the networks see at once, pixels"""
    stride: tuple[int, int]
    """Pixels between windows"""
    threshold: float
    """On the score; unknown iff score > threshold"""
    calibration: Mapping[str, Any]
    """source, n, and in percent promised_tpr, achieved_tpr and interval"""
    score: str = "lr"
    """Name in segmentation.SCORES"""
    logits_scale: Standardisation | None = None
    """Of raw log-densities; None for logits that need none"""
    unknown_scale: Standardisation | None = None
    """Of the estimator's; None as logits_scale"""
    precision: str = "float32"
    """Of backbone and decoder, a key of PRECISIONS: the one that the threshold was set in"""
    image_height: int | None = None
    """Pixels to which every scene is resized before the networks see it, its width in proportion; None: as it is"""


class ScenePrediction(NamedTuple):
    """Decisions about the pixels of one scene."""

    outlier: np.ndarray
    """[H, W] bool, unknown"""
    label: np.ndarray
    """[H, W] uint8, the segmentor's class, for unknown pixels too"""
    score: np.ndarray
    """[H, W] float32, higher = more outlying"""


class ScenePredictor(NamedTuple):
    """Both functions take one scene, uint8 [H, W, 3] of any size, and speak of its own pixels.

    What the networks see is resized to the detector's height, if it has one; a pixel gets what the nearest one got.
    """

    predict: Callable[[np.ndarray], ScenePrediction]
    """scene -> ScenePrediction"""
    score: Callable[[np.ndarray], np.ndarray]
    """scene -> [H, W], higher = more outlying"""


def predictor(detector: SceneDetector, *, batch_size: int = 8, devices: Sequence[Any] | None = None) -> ScenePredictor:
    """Make functions that send `batch_size` windows through the networks at a time; see inference.sliding.

    The networks compile once, averages for few sizes. Raises ValueError when the detector does not hold together
    (see check), and from its functions unless the scene is uint8 [H, W, 3].
    """
    check(detector)
    windows, finish, weights = parts(detector)
    sizes: dict[str, Any] = {"window": detector.window, "stride": detector.stride, "batch_size": batch_size}
    run = sliding(windows, finish, **sizes, devices=devices)
    run = partial(run, replicate(weights, devices))
    return make_predictor(run, detector.score, detector.threshold, detector.image_height)


def make_predictor(
    run: Callable[..., Mapping[str, np.ndarray]], score: str, threshold: float, height: int | None = None
) -> ScenePredictor:
    """A predictor from run(image) -> {score: [H, W], "prediction": [H, W]}; a score that is NaN is no known pixel's.

    With a height `run` sees images of that height alone.
    """

    def predict(image: np.ndarray) -> ScenePrediction:
        shape, dtype = tuple(np.shape(image)), getattr(image, "dtype", type(image).__name__)
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
            raise ValueError(f"a scene must be uint8 [H, W, 3], got {dtype} {list(shape)}; give one image at a time")
        maps = run(image) if height is None else _in_size(run(resized_image(image, height)), shape[:2])
        return ScenePrediction(is_outlier(maps[score], threshold), maps[PREDICTION], maps[score])

    return ScenePredictor(predict, lambda image: predict(image).score)


def _in_size(maps: Mapping[str, np.ndarray], size: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Maps [h, w] as [H, W]: every pixel takes the value of the nearest, so that scores and decisions agree."""
    seen = next(iter(maps.values())).shape
    rows, columns = ((np.arange(new) + 0.5) * old // new for new, old in zip(size, seen, strict=True))
    return {name: values[np.ix_(rows.astype(int), columns.astype(int))] for name, values in maps.items()}


def parts(detector: SceneDetector) -> tuple[Callable[..., Any], Callable[..., Any], tuple[PyTree, PyTree]]:
    """(windows, finish, weights) for inference.sliding; see segmentation.scoring."""
    windows = scoring.windows(*networks(detector), products=PRECISIONS[detector.precision][1])
    scales = Scales(detector.logits_scale, detector.unknown_scale)
    finish = scoring.finish({detector.score: SCORES[detector.score]}, scales)
    return windows, finish, (detector.variables["segmentor"], detector.variables["estimator"])


def networks(detector: SceneDetector) -> tuple[Segmentor, Estimator]:
    """The two networks that the detector's variables belong to."""
    segmentor = segmentation.make_segmentor(
        detector.backbone,
        len(detector.class_names),
        detector.inlier_head,
        channels=detector.channels,
        token_hidden=detector.token_hidden,
        dtype=PRECISIONS[detector.precision][0],
        overrides=detector.overrides,
        preprocessing=detector.preprocessing,
    )
    return segmentor, segmentation.make_estimator(detector.projector, detector.unknown_head)


def template(detector: SceneDetector) -> PyTree:
    """{"segmentor", "estimator"}: the shapes and dtypes that a detector's arrays must have; they fill no memory."""
    empty: Any = ()  # what shapes do not depend on, and what no cache could look up
    plain = detector._replace(
        variables=empty, overrides=empty, calibration=empty, threshold=0.0, logits_scale=None, unknown_scale=None
    )
    overrides = tuple((key, tuple(v) if isinstance(v, list) else v) for key, v in detector.overrides.items())
    return _template(plain, overrides)


@lru_cache(maxsize=8)
def _template(plain: SceneDetector, overrides: tuple[tuple[str, Any], ...]) -> PyTree:
    segmentor, estimator = networks(plain._replace(overrides=dict(overrides)))
    side = 4 * FEATURE_BACKBONES[plain.backbone].stride  # the arrays' shapes do not depend on it

    def start(key: Array, images: Array) -> PyTree:
        variables = segmentation.init_segmentor(segmentor, key, images)
        last = segmentation.last_map(segmentor.features(variables["backbone"], images))
        return {"segmentor": variables, "estimator": segmentation.init_estimator(estimator, key, last)}

    shapes = jax.eval_shape(start, jax.random.key(0), jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    return {name: part | {"head": _any_memory(part["head"])} for name, part in shapes.items()}


def _any_memory(head: PyTree) -> PyTree:
    """A head that learns no more may have let go of its memory bank."""
    state = head["state"]
    if not isinstance(state, GmmState):
        return head
    groups, _, dimension = state.bank.shape
    bank: Any = jax.ShapeDtypeStruct((groups, ANY, dimension), state.bank.dtype)
    return head | {"state": state._replace(bank=bank)}


def check(detector: SceneDetector) -> None:
    """Raise ValueError unless names are known, numbers are sane and finite and every array has its place and shape."""
    check_networks(detector)
    check_choice("score", detector.score, SCORES)
    check_common(detector)
    check_windows(detector)
    for name in ("logits_scale", "unknown_scale"):
        scale = getattr(detector, name)
        if scale is not None and not (np.isfinite([float(v) for v in scale]).all() and scale.deviation > 0.0):
            raise ValueError(f"{name} must be a finite mean and a positive deviation, got {tuple(map(float, scale))}")
    trees.check(detector.variables, template(detector))


def check_networks(detector: SceneDetector) -> None:
    """The part of `check` that must come before building networks from what a file says."""
    check_choice("backbone", detector.backbone, FEATURE_BACKBONES)
    check_choice("precision", detector.precision, PRECISIONS)
    check_overrides(detector.overrides)
    _check_sizes("channels and token_hidden", (detector.channels, detector.token_hidden), 2, LARGEST)
    if not 1 <= len(detector.projector) <= MOST_LAYERS:
        raise ValueError(f"projector must have 1 to {MOST_LAYERS} layers, got {len(detector.projector)}")
    _check_sizes("projector", detector.projector, len(detector.projector), LARGEST)
    classes = len(detector.class_names)
    check_interval("the number of class names", classes, 1, MOST_CLASSES)
    for name, wanted in (("inlier_head", classes), ("unknown_head", UNKNOWN_CLASSES)):
        settings = getattr(detector, name)
        if settings is not None and settings.num_classes != wanted:
            raise ValueError(f"{name} must have {wanted} classes, got {settings.num_classes}")


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Raise ValueError unless they are attributes that a weight file decides, of sane sizes."""
    for name, value in overrides.items():
        check_choice("an override of the backbone", name, OVERRIDES)
        if name == "grid":
            _check_sizes("grid", value, 2, LARGEST_GRID)
        if name == "shift":
            check_choice("shift of the backbone", value, SHIFT_RULES)
        if name == "window":
            _check_sizes("window of the backbone", (value,), 1, LARGEST_GRID)


def check_windows(detector: Any) -> None:
    """Raise ValueError unless window, stride and height of a detector are whole numbers that its backbone can take."""
    backbone = FEATURE_BACKBONES[detector.backbone]
    _check_sizes("window", detector.window, 2, LARGEST_SIDE)
    _check_sizes("stride", detector.stride, 2, LARGEST_SIDE)
    if detector.image_height is not None:
        _check_sizes("image_height", (detector.image_height,), 1, LARGEST_HEIGHT)
    if min(detector.window) < backbone.stride or (
        backbone.kind == "plain" and any(side % backbone.stride for side in detector.window)
    ):
        raise ValueError(
            f"window must be multiples of {backbone.stride} for {detector.backbone}, got {detector.window}"
        )
    if any(step > side for step, side in zip(detector.stride, detector.window, strict=True)):
        raise ValueError(f"stride must be at most the window {detector.window}, got {detector.stride}")


def _check_sizes(name: str, values: Any, count: int, largest: float) -> None:
    whole = [value for value in values if isinstance(value, int) and 1 <= value <= largest]
    if len(whole) != count or len(values) != count:
        raise ValueError(f"{name} must be {count} whole numbers from 1 to {largest:.0f}, got {values!r:.80}")
