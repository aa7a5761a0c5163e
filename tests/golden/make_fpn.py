"""Make fpn.npz and resize.npz: what PyTorch's decoder gives for random weights, and PyTorch's resizing of small maps.

python tests/golden/make_fpn.py        (needs torch; a few seconds)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from random_weights import random_state, sample
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.peers.fpn_torch import FeaturePyramid  # noqa: E402, the line above makes it findable

SHAPES = {  # of the four maps: [B, h, w, C]
    "plain": [(2, 5, 6, 12)] * 4,
    "pyramid": [(2, 13, 18, 4), (2, 7, 9, 6), (2, 4, 5, 8), (2, 2, 3, 10)],
}
CHANNELS, HIDDEN = 8, 10
NEAREST = [(18, 37), (14, 46), (58, 54), (518, 148), (2, 82), (7, 21), (37, 37)]  # 14 -> 46: exact fractions differ
BILINEAR = [(7, 14), (7, 10), (11, 5), (1, 6), (6, 1), (3, 100)]


def maps(kind: str) -> list[np.ndarray]:
    draw = np.random.RandomState(3)
    return [draw.standard_normal(shape).astype(np.float32) for shape in SHAPES[kind]]


def network(kind: str) -> tuple[FeaturePyramid, dict[str, np.ndarray]]:
    model = FeaturePyramid([shape[-1] for shape in SHAPES[kind]], kind, CHANNELS, HIDDEN)
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    weights = random_state(list(state), [tuple(v.shape) for v in state.values()])
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    return model, weights


def run(model: FeaturePyramid, inputs: list[torch.Tensor]) -> torch.Tensor:
    return model([x.permute(0, 3, 1, 2) for x in inputs]).permute(0, 2, 3, 1)


def record(kind: str) -> dict[str, np.ndarray]:
    """The map in evaluation; map, gradients of its mean square and running statistics of one training pass."""
    model, weights = network(kind)
    inputs = [torch.from_numpy(x).requires_grad_() for x in maps(kind)]
    golden = {"names": np.array(list(weights)), "shapes": [",".join(map(str, v.shape)) for v in weights.values()]}
    golden["evaluation"] = run(model.eval(), inputs).detach().numpy()
    out = run(model.train(), inputs)
    out.square().mean().backward()
    golden["training"] = out.detach().numpy()
    golden |= {f"gradient/{k}": sample(v.grad.numpy()) for k, v in model.named_parameters()}
    golden |= {f"gradient_of_map/{i}": x.grad.numpy() for i, x in enumerate(inputs)}
    golden |= {f"statistic/{k}": v.numpy() for k, v in model.named_buffers() if "running" in k}
    return {f"{kind}/{k}": np.asarray(v) for k, v in golden.items()}


def resized() -> dict[str, np.ndarray]:
    golden = {}
    for given, out in NEAREST:
        rows = torch.arange(given, dtype=torch.float32)
        golden[f"nearest/{given}/{out}"] = F.interpolate(rows[None, None], size=out, mode="nearest")[0, 0].numpy()
    for given, out in BILINEAR:
        for corners in (False, True):
            unit = torch.eye(given)[:, None, :, None]  # one map per row: the results are the columns of the weights
            x = F.interpolate(unit, size=(out, 1), mode="bilinear", align_corners=corners)
            golden[f"bilinear/{given}/{out}/{int(corners)}"] = x[:, 0, :, 0].T.numpy()
    return golden


if __name__ == "__main__":
    origin = {"origin": np.array(f"PyTorch {torch.__version__}, float32 on a CPU, tests/golden/make_fpn.py")}
    folder = Path(__file__).parent
    np.savez_compressed(folder / "fpn.npz", **origin, **record("plain"), **record("pyramid"))
    np.savez_compressed(folder / "resize.npz", **origin, **resized())
