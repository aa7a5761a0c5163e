"""A small detector of unknown objects in scenes, with linear heads and random weights on a tiny transformer."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from quantjax.detector.scenes import SceneDetector, template
from quantjax.extractors import FEATURE_BACKBONES


def scene_detector(class_names: tuple[str, ...], window: tuple[int, int], achieved: float, **options: Any) -> Any:
    """One whose windows lie side by side and whose threshold is 0; `achieved` is what its calibration says, percent."""
    empty = SceneDetector(
        backbone="vit_tiny_scratch",
        overrides={},
        channels=8,
        token_hidden=8,
        projector=(8,),
        inlier_head=None,
        unknown_head=None,
        variables={},
        preprocessing=FEATURE_BACKBONES["vit_tiny_scratch"].preprocessing,
        class_names=class_names,
        window=window,
        stride=window,
        threshold=0.0,
        calibration={"source": "inlier scenes", "n": 9, "promised_tpr": 99.0, "achieved_tpr": achieved},
        **options,
    )
    rng = np.random.default_rng(0)
    draw = lambda leaf: np.abs(0.3 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)  # noqa: E731
    return empty._replace(variables=jax.tree.map(draw, template(empty)))
