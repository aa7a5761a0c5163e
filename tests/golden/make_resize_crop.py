"""Record what torchvision makes of images of five shapes: Resize(32), then CenterCrop(32), on PIL images.

    python tests/golden/make_resize_crop.py

Needs torchvision (CPU) and Pillow; writes tests/golden/resize_crop.npz.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torchvision
from PIL import Image
from torchvision import transforms

SHAPES = ((40, 57), (64, 64), (33, 32), (20, 27), (101, 75), (32, 37))  # height, width; odd margins and both directions


def picture(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Noise over a ramp, so that both rounding and interpolation show."""
    ramp = np.linspace(0, 200, height * width * 3).reshape(height, width, 3)
    return (ramp + rng.uniform(0, 55, ramp.shape)).astype(np.uint8)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    program = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32)])
    record = {"origin": f"torchvision {torchvision.__version__}, Pillow images, make_resize_crop.py"}
    for height, width in SHAPES:
        image = picture(height, width, rng)
        record[f"in_{height}x{width}"] = image
        record[f"out_{height}x{width}"] = np.asarray(program(Image.fromarray(image)))
    np.savez_compressed(Path(__file__).with_name("resize_crop.npz"), **record)
