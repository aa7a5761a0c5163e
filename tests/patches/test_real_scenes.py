"""A floor under what frozen patches find on two real scenes, with published weights; seconds."""

import numpy as np
import pytest

from quantjax import detector, metrics
from quantjax.convert.transformers import read_backbone
from quantjax.data.scenes import open_scenes

WEIGHTS = "imagenet_deit_tiny_patch16_224.safetensors"


def test_eight_scenes_of_one_city_tell_animals_on_other_roads(data_dir):
    """At 224 pixels, two scenes; measured when it was written: see the floor, 3 above it."""
    file = data_dir / "weights" / WEIGHTS
    if not file.is_file():
        pytest.skip(f"{WEIGHTS} is not in weights/ of the data: add DeiT-Tiny's published weights to run this test")
    variables, overrides = read_backbone(file, "deit_tiny16")
    train, roads = open_scenes("camvid", data_dir, "train"), open_scenes("road_anomaly", data_dir, "test")
    frames = [train[round(i)]["image"] for i in np.linspace(0, len(train) - 1, 8)]
    fitted = detector.fit_patches(
        "mahalanobis_pp", "deit_tiny16", frames, variables=variables, overrides=overrides, maps=("block_10",),
        image_height=224, stride=(224, 272),
    )  # fmt: skip
    score = detector.predictor(fitted._replace(threshold=0.0), batch_size=2).score
    shown = [roads[i] for i in (0, 30)]
    found = metrics.pixel_metrics(
        np.concatenate([score(row["image"])[::4, ::4].ravel() for row in shown]),
        np.concatenate([row["label"][::4, ::4].ravel() for row in shown]),
    )
    assert found["ap"] > 0.66
