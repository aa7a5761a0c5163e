"""Make swin_classifier.npz: the last map of Hugging Face's Swin classifier for random weights, where one window is
as high as the map, so that its windows do not move.

python tests/golden/make_swin_classifier.py        (needs torch and transformers; a few seconds)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from make_swin import fill
from transformers import SwinConfig, SwinModel

SIZE = (2, 128, 160, 3)  # 32 x 40 tokens, 16 x 20, 8 x 10, then 4 x 5 of windows of 4

if __name__ == "__main__":
    config = SwinConfig(
        image_size=128, patch_size=4, embed_dim=8, depths=[1, 1, 1, 2], num_heads=[1, 2, 2, 4], window_size=4,
        drop_path_rate=0.0,
    )  # fmt: skip
    model = SwinModel(config, add_pooling_layer=False).eval()
    weights = fill(model)
    images = np.random.RandomState(1).standard_normal(SIZE).astype(np.float32)
    with torch.inference_mode():
        x = torch.from_numpy(images).permute(0, 3, 1, 2)
        tokens = model(x, interpolate_pos_encoding=True).last_hidden_state.numpy()
    versions = f"transformers {transformers.__version__}, PyTorch {torch.__version__}"
    arrays = {
        "origin": np.array(f"{versions}, float32 on a CPU, tests/golden/make_swin_classifier.py"),
        "names": np.array(list(weights)),
        "shapes": np.array([",".join(map(str, v.shape)) for v in weights.values()]),
        "res5": tokens.reshape(2, 4, 5, -1),
    }
    np.savez_compressed(Path(__file__).with_name("swin_classifier.npz"), **arrays)
