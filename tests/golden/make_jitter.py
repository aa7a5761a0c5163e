"""Record what albumentations makes of colours: its four adjustments on float images, in each of the 24 orders.

    python tests/golden/make_jitter.py

Needs albumentations 1.4 (the last with these function names); writes tests/golden/jitter.npz.
"""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import albumentations
import numpy as np
from albumentations.augmentations import functional

ADJUSTMENTS = (
    functional.adjust_brightness_torchvision,
    functional.adjust_contrast_torchvision,
    functional.adjust_saturation_torchvision,
    functional.adjust_hue_torchvision,
)

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    orders = np.array(list(permutations(range(4))), np.int32)
    images = rng.integers(0, 256, (len(orders), 6, 7, 3), dtype=np.uint8)
    images[:, 0] = images[:, 0, :, :1]  # grey pixels have no hue
    images[:, 1, :4] = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)
    factors = rng.uniform(0.6, 1.4, (len(orders), 3)).astype(np.float32)
    hue = rng.uniform(-0.5, 0.5, len(orders)).astype(np.float32)
    adjusted = []
    for image, order, factor, turn in zip(images, orders, factors, hue, strict=True):
        out = image.astype(np.float32) / 255
        for k in order:
            out = np.clip(ADJUSTMENTS[k](out, float([*factor, turn][k])), 0, 1).astype(np.float32)
        adjusted.append(out)
    np.savez_compressed(
        Path(__file__).with_name("jitter.npz"),
        origin=f"albumentations {albumentations.__version__} on float32 images, make_jitter.py",
        images=images,
        orders=orders,
        factors=factors,
        hue=hue,
        adjusted=np.stack(adjusted),
    )
