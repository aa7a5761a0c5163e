"""What detectors of every kind state beside their networks: classes, standardisation, arithmetic, threshold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from quantjax import methods
from quantjax.checks import check_choice
from quantjax.extractors.preprocess import stated
from quantjax.types import Preprocessing

# what convolutions compute in, and how products round their factors; scores are float32 always
PRECISIONS = {
    "float32": (jnp.float32, "highest"),
    "tensorfloat32": (jnp.float32, "tensorfloat32"),
    "bfloat16": (jnp.bfloat16, "highest"),
}
LARGEST = 1e5  # of the numbers in a file: no one can fill the memory with sizes that large and arrays to fit them


def check_common(detector: Any) -> None:
    """Raise ValueError unless classes, preprocessing, precision and threshold of a detector make sense."""
    check_choice("precision", detector.precision, PRECISIONS)
    if not detector.class_names:
        raise ValueError("a detector needs class names, got none")
    check_threshold(detector)
    check_choice("order of the channels", detector.preprocessing.order, ("rgb", "bgr"))
    mean, std = (np.asarray(values, float) for values in detector.preprocessing[:2])
    if mean.shape != (3,) or std.shape != (3,) or not np.isfinite([mean, std]).all() or (std <= 0.0).any():
        raise ValueError(f"preprocessing must hold three means and three positive stds, got {detector.preprocessing}")
    for name in ("side", "short_side"):
        value = getattr(detector.preprocessing, name)
        if value is not None and not 1 <= value <= LARGEST:
            raise ValueError(f"{name} of the preprocessing must be pixels, at least 1, or None; got {value}")


def check_threshold(detector: Any) -> None:
    """Raise ValueError unless a detector's threshold is a number."""
    if not np.isfinite(detector.threshold):
        raise ValueError(
            f"threshold must be finite, got {detector.threshold}; calibrate it on held-out inliers (detector.calibrate)"
        )


def to_content(detector: Any) -> dict[str, Any]:
    """The part of detector.json that all kinds share; of the backbone only what it computes in."""
    return {
        "backbone": {"name": detector.backbone, "precision": detector.precision},
        "preprocessing": stated(detector.preprocessing),
        **decision_to_content(detector),
    }


def decision_to_content(detector: Any) -> dict[str, Any]:
    """The part that detectors without a network state, too."""
    return {
        "class_names": list(detector.class_names),
        "threshold": float(detector.threshold),
        "calibration": dict(detector.calibration),
    }


def from_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """The detector's fields that `to_content` wrote; raises ValueError, TypeError or KeyError for anything else."""
    said = content["preprocessing"]
    mean, std = (tuple(map(float, said[key])) for key in ("mean", "std"))
    sides = (None if said.get(key) is None else int(said[key]) for key in ("side", "short_side"))
    return {
        "backbone": content["backbone"]["name"],
        "precision": content["backbone"].get("precision", "float32"),
        "preprocessing": Preprocessing(mean, std, said.get("order", "rgb"), *sides),
        **decision_from_content(content),
    }


def decision_from_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that `decision_to_content` wrote; raises as from_content does."""
    return {
        "class_names": tuple(map(str, content["class_names"])),
        "threshold": float(content["threshold"]),
        "calibration": dict(content["calibration"]),
    }


def score_from_content(content: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(name of the method, settings of its score); raises ValueError when no such method is registered.

    In artefacts of version 0.1 an `epsilon` beside a plain score means the method that is called perturbed now.
    """
    name, settings = content["score"]["name"], dict(content["score"].get("settings", {}))
    check_numbers("score", settings, lists=("permutations",))
    if "epsilon" in settings and "epsilon" not in methods.get(name).defaults:
        if settings["epsilon"] > 0.0:
            name = f"{name}_perturbed"
        else:
            del settings["epsilon"]
    methods.check_settings(methods.get(name), settings)
    return name, settings


def check_numbers(owner: str, settings: Mapping[str, Any], lists: tuple[str, ...] = ()) -> None:
    """Raise ValueError unless settings read from a file are texts and numbers of sane size, or in `lists`."""
    for key, value in settings.items():
        number = isinstance(value, int | float) and abs(value) <= LARGEST
        if not (number or isinstance(value, str) or (key.rpartition(".")[2] in lists and isinstance(value, list))):
            raise ValueError(
                f"setting {key} of the {owner} must be a text or a number up to {LARGEST:.0e}, got {value!r:.40}"
            )
