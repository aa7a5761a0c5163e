"""A detector of unknown objects in scenes as JSON values and arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from quantjax import trees
from quantjax.checks import check_choice
from quantjax.detector.common import check_numbers, from_content, to_content
from quantjax.detector.scenes import SceneDetector, check_networks, template
from quantjax.extractors import FEATURE_BACKBONES
from quantjax.heads.gmm import GmmSettings
from quantjax.scores import Standardisation
from quantjax.types import PyTree


def content(detector: SceneDetector) -> tuple[dict[str, Any], PyTree]:
    """(detector.json, arrays) of a detector that `check` accepts."""
    shared = to_content(detector)
    return {
        **shared,
        "backbone": shared["backbone"] | {"overrides": with_shift(detector.backbone, detector.overrides)},
        "decoder": {"channels": detector.channels, "token_hidden": detector.token_hidden},
        "projector": list(detector.projector),
        "inlier_head": _head_to_content(detector.inlier_head),
        "unknown_head": _head_to_content(detector.unknown_head),
        "window": list(detector.window),
        "stride": list(detector.stride),
        "image_height": detector.image_height,
        "score": {
            "name": detector.score,
            **({"form": "log_odds"} if detector.score == "msp" else {}),
            "logits_scale": _scale_to_content(detector.logits_scale),
            "unknown_scale": _scale_to_content(detector.unknown_scale),
        },
    }, detector.variables


def restore(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> SceneDetector:
    """Undo `content`; raises ValueError, TypeError, KeyError or AttributeError when it says something else."""
    overrides = with_shift(content["backbone"]["name"], content["backbone"].get("overrides", {}), "always")
    detector = SceneDetector(
        overrides={name: tuple(v) if isinstance(v, list) else v for name, v in overrides.items()},
        channels=content["decoder"]["channels"],
        token_hidden=content["decoder"]["token_hidden"],
        projector=tuple(content["projector"]),
        inlier_head=_head_from_content("inlier_head", content["inlier_head"]),
        unknown_head=_head_from_content("unknown_head", content["unknown_head"]),
        variables={},
        window=tuple(content["window"]),
        stride=tuple(content["stride"]),
        image_height=content.get("image_height"),
        score=_score_from_content(content["score"]),
        logits_scale=_scale_from_content(content["score"].get("logits_scale")),
        unknown_scale=_scale_from_content(content["score"].get("unknown_scale")),
        **from_content(content),
    )
    check_networks(detector)
    return detector._replace(variables=trees.restore(arrays, template(detector)))


def with_shift(backbone: str, overrides: Mapping[str, Any], otherwise: str | None = None) -> dict[str, Any]:
    """Overrides that say how Swin's windows move; without `otherwise` as the backbone's name has it.

    Files of versions that did not write it were made with windows that always move.
    """
    known = FEATURE_BACKBONES.get(backbone)
    shift = None if known is None else getattr(known.build(), "shift", None)
    return dict(overrides) if shift is None else {"shift": otherwise or shift, **overrides}


def _head_to_content(settings: GmmSettings | None) -> dict[str, Any]:
    return {"kind": "linear"} if settings is None else {"kind": "mixture", **settings._asdict()}


def _head_from_content(name: str, content: Mapping[str, Any]) -> GmmSettings | None:
    check_choice(f"kind of {name}", content["kind"], ("linear", "mixture"))
    settings = {key: value for key, value in content.items() if key != "kind"}
    check_numbers(name, settings)
    if content["kind"] == "mixture":
        return GmmSettings(**settings)
    if settings:
        raise ValueError(f"{name} is linear and has no settings, got {sorted(settings)}")
    return None


def _score_from_content(content: Mapping[str, Any]) -> str:
    """Without its form, "msp" was written when it was a probability, and so was the threshold on it."""
    return "msp_probability" if content["name"] == "msp" and "form" not in content else content["name"]


def _scale_to_content(scale: Standardisation | None) -> dict[str, float] | None:
    return None if scale is None else {key: float(value) for key, value in scale._asdict().items()}


def _scale_from_content(content: Mapping[str, float] | None) -> Standardisation | None:
    if content is None:
        return None
    return Standardisation(**{key: jnp.float32(value) for key, value in content.items()})
