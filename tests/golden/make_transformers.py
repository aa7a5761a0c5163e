"""Make transformers.npz: what Hugging Face's transformers give for random weights, and PyTorch's resized positions.

python tests/golden/make_transformers.py        (needs torch and transformers; a few seconds)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from torch.nn.functional import interpolate

sys.path.insert(0, str(Path(__file__).parent))
from random_weights import random_state

SIZE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
CELLS = (3, 6)  # of the images, where positions are stored for 5 x 5
GRIDS = ((3, 6), (7, 9), (5, 8), (37, 74))
RULES = {
    "antialiased": lambda p, grid: interpolate(p, size=grid, mode="bicubic", antialias=True),
    "exact": lambda p, grid: interpolate(p, size=grid, mode="bicubic"),
    # the factors by which DINOv2's authors resize a 5 x 5 grid
    "offset": lambda p, grid: interpolate(p, scale_factor=[(n + 0.1) / 5 for n in grid], mode="bicubic"),
}


class Network(NamedTuple):
    """A network with random weights, and where its final norm and first patch token are."""

    model: Any
    norm: Any
    skip: int
    patch: int
    options: dict[str, Any]


def networks() -> dict[str, Network]:
    plain = transformers.Dinov2Model(transformers.Dinov2Config(**SIZE, patch_size=14, image_size=70))
    registers = transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**SIZE, patch_size=14, image_size=70, num_register_tokens=4)
    )
    clip = transformers.CLIPVisionModel(
        transformers.CLIPVisionConfig(**SIZE, patch_size=16, image_size=80, intermediate_size=64)
    )
    final = getattr(clip, "vision_model", clip).post_layernorm
    return {
        "dinov2": Network(plain, plain.layernorm, 1, 14, {}),
        "registers": Network(registers, registers.layernorm, 5, 14, {}),
        "clip": Network(clip, final, 1, 16, {"interpolate_pos_encoding": True}),
    }


def load_random(network: Network) -> dict[str, np.ndarray]:
    state = {k: v for k, v in network.model.state_dict().items() if v.is_floating_point()}
    weights = random_state(list(state), [tuple(v.shape) for v in state.values()])
    network.model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    return weights


def evaluate(network: Network, cells: tuple[int, int] = CELLS) -> dict[str, np.ndarray]:
    """Images, the normed patch tokens of every block as maps, and the normed class token of the last."""
    height, width = (n * network.patch for n in cells)
    images = np.random.RandomState(1).standard_normal((2, height, width, 3)).astype(np.float32)
    with torch.inference_mode():
        x = torch.from_numpy(images).permute(0, 3, 1, 2)
        states = network.model.eval()(x, output_hidden_states=True, **network.options).hidden_states
        tokens = [network.norm(s).numpy() for s in states]
    maps = {f"block_{i}": t[:, network.skip :].reshape(2, *cells, -1) for i, t in enumerate(tokens[1:])}
    return {"images": images, **maps, "summary": tokens[-1][:, 0]}


def resized_positions() -> dict[str, np.ndarray]:
    positions = torch.from_numpy(np.random.RandomState(2).standard_normal((1, 4, 5, 5)).astype(np.float32))
    golden = {"positions": positions[0].permute(1, 2, 0).numpy()}
    for rule, resize in RULES.items():
        for grid in GRIDS:
            resized = resize(positions, grid)[0].permute(1, 2, 0).numpy()
            golden[f"positions/{rule}/{grid[0]}x{grid[1]}"] = resized[::3, ::3] if grid == (37, 74) else resized
    return golden


def main() -> None:
    version = f"transformers {transformers.__version__} with PyTorch {torch.__version__}"
    arrays = {"origin": np.array(f"{version}, float32 on a CPU, tests/golden/make_transformers.py")}
    arrays |= resized_positions()
    for name, network in networks().items():
        weights = load_random(network)
        arrays[f"{name}/names"] = np.array(list(weights))
        arrays[f"{name}/shapes"] = np.array([",".join(map(str, v.shape)) for v in weights.values()])
        arrays |= {f"{name}/{k}": v for k, v in evaluate(network).items() if k != "images"}
    np.savez_compressed(Path(__file__).with_name("transformers.npz"), **arrays)


if __name__ == "__main__":
    main()
