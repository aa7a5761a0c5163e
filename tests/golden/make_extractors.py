"""Make extractors.npz: what PyTorch's networks give, for random weights and for the published ones.

python tests/golden/make_extractors.py DATA_DIR        (needs torch; two minutes)

DATA_DIR holds cifar-10-batches-py and weights/{cifar10_resnet20.npz, cifar10_resnet56.npz, cifar10_wrn40_2.pt}.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from random_weights import random_state, sample
from torch_networks import build

from quantjax.data.sources import open_source
from quantjax.extractors import BACKBONES

NETWORKS = ("wrn10_1", "wrn16_2", "resnet20", "resnet18")
PUBLISHED = {"resnet20": "cifar10_resnet20.npz", "resnet56": "cifar10_resnet56.npz", "wrn40_2": "cifar10_wrn40_2.pt"}
IMAGES = 24  # the first ones of CIFAR-10's test split
COUNTED = 1000  # as many are judged for the accuracy


def load_random(name: str) -> tuple[torch.nn.Module, dict[str, np.ndarray]]:
    network = build(name)
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    weights = random_state(list(state), [tuple(v.shape) for v in state.values()])
    network.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    shapes = [",".join(map(str, v.shape)) for v in weights.values()]
    return network, {f"{name}/names": np.array(list(weights)), f"{name}/shapes": np.array(shapes)}


def evaluate(name: str) -> dict[str, np.ndarray]:
    network, golden = load_random(name)
    images = np.random.RandomState(1).standard_normal((2, 32, 32, 3)).astype(np.float32)
    with torch.inference_mode():
        logits, features = network.eval()(torch.from_numpy(images).permute(0, 3, 1, 2))
    return golden | {f"{name}/logits": logits.numpy(), f"{name}/features": features.numpy()}


def train_step(name: str = "wrn10_1") -> dict[str, np.ndarray]:
    """Loss, gradients and running statistics of one training pass over 4 images of 16 x 16."""
    network, _ = load_random(name)
    images = np.random.RandomState(2).standard_normal((4, 16, 16, 3)).astype(np.float32)
    logits, _ = network.train()(torch.from_numpy(images).permute(0, 3, 1, 2))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 3, 3, 9]))
    loss.backward()
    golden = {"step/loss": np.array(loss.item(), np.float32), "step/logits": logits.detach().numpy()}
    golden |= {f"step/gradient/{k}": sample(v.grad.numpy()) for k, v in network.named_parameters()}
    return golden | {f"step/statistic/{k}": v.numpy() for k, v in network.named_buffers() if "running" in k}


def published(name: str, data_dir: Path) -> dict[str, np.ndarray]:
    network, path = build(name), data_dir / "weights" / PUBLISHED[name]
    state = dict(np.load(path)) if path.suffix == ".npz" else torch.load(path, weights_only=True)
    network.load_state_dict({k: torch.as_tensor(v) for k, v in state.items()}, strict=False)
    source, p = open_source("cifar10", data_dir, "test"), BACKBONES[name].preprocessing
    rows = [source[i] for i in range(COUNTED)]
    pixels = np.stack([row["image"] for row in rows]).astype(np.float64) / 255.0
    images = torch.from_numpy(((pixels - np.array(p.mean)) / np.array(p.std)).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits, features = network.eval()(images[:IMAGES])
        judged = torch.cat([network(part)[0].argmax(1) for part in images.split(250)])
    return {
        f"published/{name}/logits": logits.numpy(),
        f"published/{name}/features": features.numpy(),
        f"published/{name}/right": np.array(sum(int(j) == row["label"] for j, row in zip(judged, rows, strict=True))),
    }


if __name__ == "__main__":
    arrays = {"origin": np.array(f"PyTorch {torch.__version__}, float32 on a CPU, tests/golden/make_extractors.py")}
    for network_name in NETWORKS:
        arrays |= evaluate(network_name)
    arrays |= train_step()
    for network_name in PUBLISHED:
        arrays |= published(network_name, Path(sys.argv[1]))
    np.savez_compressed(Path(__file__).with_name("extractors.npz"), **arrays)
