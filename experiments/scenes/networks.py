"""The networks that the settings name."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from experiments.scenes.config import Settings
from quantjax.extractors import FEATURE_BACKBONES, SCRATCH
from quantjax.heads.gmm import GmmSettings
from quantjax.segmentation import UNKNOWN_CLASSES, Estimator, Segmentor, make_estimator, make_segmentor
from quantjax.types import Preprocessing

WIDE = 512  # hidden width of projector and token branch (section 3.2); scratch backbones use their own
ESTIMATOR_UPDATE = 3  # steps between EM updates of the estimator's mixture, 5 for the segmentor's (released code)
# A memory of 8,000 that takes 20 new rows a step keeps its random start for 400 steps; short runs cannot wait for that.
SHORT: dict[str, Any] = {"memory": 512, "momentum": 0.9, "update_every": 1, "per_component": 64}


def segmentor(
    config: Settings,
    num_classes: int,
    overrides: dict[str, Any] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Segmentor:
    """The inlier segmentor; overrides are what the weight file says about the backbone, preprocessing its images'."""
    return make_segmentor(
        config.backbone,
        num_classes,
        mixture(config, config.variant[0], num_classes),
        channels=config.channels,
        token_hidden=hidden(config),
        dtype=jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32,
        overrides=overrides,
        preprocessing=preprocessing,
    )


def estimator(config: Settings) -> Estimator:
    """The unknown estimation module."""
    width = hidden(config)
    head = mixture(config, config.variant[-1], UNKNOWN_CLASSES, ESTIMATOR_UPDATE)
    return make_estimator((width, width, config.channels), head)


def hidden(config: Settings) -> int:
    """Hidden width of projector and token branch."""
    return min(WIDE, FEATURE_BACKBONES[config.backbone].width) if config.backbone in SCRATCH else WIDE


def mixture(config: Settings, kind: str, num_classes: int, update_every: int | None = None) -> GmmSettings | None:
    """The mixture of head "g"; None for head "d", which has none."""
    if kind == "d":
        return None
    settings = GmmSettings(num_classes, dimension=config.channels, components=config.components)
    if update_every is not None:
        settings = settings._replace(update_every=update_every)
    if config.preset == "short":
        settings = settings._replace(**SHORT)
    if config.preset == "paper":
        settings = settings._replace(combine="logsumexp", normalisation="none")
    return settings._replace(per_device_sinkhorn=config.per_device_sinkhorn)
