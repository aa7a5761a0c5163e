"""Make swin.npz: the maps of Hugging Face's Swin backbone for random weights, at a size that pads at every step.

python tests/golden/make_swin.py        (needs torch and transformers; a few seconds)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from random_weights import random_state
from transformers import SwinBackbone, SwinConfig

SIZE = (2, 54, 83, 3)  # 14 x 21 tokens, then 7 x 11, 4 x 6, 2 x 3, of windows of 4


def network() -> SwinBackbone:
    config = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[2, 2, 3, 1], num_heads=[1, 2, 2, 4], window_size=4,
        drop_path_rate=0.0, out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    return SwinBackbone(config).eval()


def fill(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Give every parameter of the model a repeatable random value, and return them."""
    state = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    weights = random_state(list(state), [tuple(v.shape) for v in state.values()])
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    return weights


def evaluate(model: torch.nn.Module, images: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        maps = model(torch.from_numpy(images).permute(0, 3, 1, 2)).feature_maps
    return [x.permute(0, 2, 3, 1).numpy() for x in maps]


if __name__ == "__main__":
    model = network()
    weights = fill(model)
    versions = f"transformers {transformers.__version__}, PyTorch {torch.__version__}"
    arrays = {"origin": np.array(f"{versions}, float32 on a CPU, tests/golden/make_swin.py")}
    arrays |= {
        "names": np.array(list(weights)),
        "shapes": np.array([",".join(map(str, v.shape)) for v in weights.values()]),
    }
    images = np.random.RandomState(1).standard_normal(SIZE).astype(np.float32)
    arrays |= {f"res{i}": x for i, x in enumerate(evaluate(model, images), 2)}
    np.savez_compressed(Path(__file__).with_name("swin.npz"), **arrays)
