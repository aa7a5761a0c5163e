"""Make classifiers.npz: what the networks of PyTorch's libraries give, for random weights and for published ones.

python tests/golden/make_classifiers.py DATA_DIR        (needs torch, torchvision, timm and transformers; minutes)

DATA_DIR holds cifar-10-batches-py and, in weights/, the files of PUBLISHED.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
import transformers
from PIL import Image
from random_weights import random_state
from safetensors.torch import load_file
from torch_networks import build

IMAGES = 8  # the first ones of CIFAR-10's test split, whose logits are kept
# network, how many images are judged; of transformers fewer, which are slow
PUBLISHED = {
    "cifar10_wrn16_2_seed0.pth": ("wrn16_2", 1000),
    "cifar10_densenet_bc100_12.pth.tar": ("densenet_bc100_12", 300),
    "cifar10_deit_tiny.safetensors": ("deit_tiny16", 48),
}
CIFAR = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = {"image_size": 48, "patch_size": 16, "num_heads": 2, "num_classes": 5}  # of a ViT of two blocks, width 16


class TimmViT(timm.models.vision_transformer.VisionTransformer):
    def forward(self, x):
        tokens = self.forward_features(x)
        return self.forward_head(tokens), self.forward_head(tokens, pre_logits=True)


class TorchvisionViT(torchvision.models.vision_transformer.VisionTransformer):
    def forward(self, x):
        x = torch.cat([self.class_token.expand(len(x), -1, -1), self._process_input(x)], 1)
        features = self.encoder(x)[:, 0]
        return self.heads(features), features


class TorchvisionResNet(torchvision.models.ResNet):
    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))
        return self.fc(features), features


class HuggingFaceViT(transformers.ViTForImageClassification):
    def forward(self, x):
        features = self.vit(x)[0][:, 0]
        return self.classifier(features), features


def networks() -> dict[str, torch.nn.Module]:
    """Name -> network of random weights, images -> (logits, features)."""
    hugging_face = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=48, num_labels=5
    )
    bottleneck = torchvision.models.resnet.Bottleneck
    return {
        "densenet_bc100_12": build("densenet_bc100_12"),
        "resnet50": TorchvisionResNet(bottleneck, [3, 4, 6, 3], num_classes=10),
        "timm": TimmViT(img_size=48, patch_size=16, num_classes=5, embed_dim=16, depth=2, num_heads=2),
        "torchvision": TorchvisionViT(**SMALL, num_layers=2, hidden_dim=16, mlp_dim=64),
        "hugging_face": HuggingFaceViT(hugging_face),
    }


def evaluate(name: str, network: torch.nn.Module) -> dict[str, np.ndarray]:
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    weights = random_state(list(state), [tuple(v.shape) for v in state.values()])
    network.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    side = 32 if name == "densenet_bc100_12" else 64 if name == "resnet50" else 48
    images = np.random.RandomState(1).standard_normal((2, side, side, 3)).astype(np.float32)
    with torch.inference_mode():
        logits, features = network.eval()(torch.from_numpy(images).permute(0, 3, 1, 2))
    return {
        f"{name}/names": np.array(list(weights)),
        f"{name}/shapes": np.array([",".join(map(str, v.shape)) for v in weights.values()]),
        f"{name}/logits": logits.numpy(),
        f"{name}/features": features.numpy(),
    }


# the publisher's names of the wide network -> those of torch_networks
WIDE = {".nblockLayer.": ".layer.", "batch_norm1": "bn1", "batch_norm2": "bn2", "conv_inp": "convShortcut"}


def load(file: Path, name: str) -> torch.nn.Module:
    if name == "deit_tiny16":
        network = TimmViT(img_size=224, patch_size=16, num_classes=10, embed_dim=192, depth=12, num_heads=3)
        state = load_file(file)
    else:
        network = build(name)
        state = torch.load(file, weights_only=True)
        state = state.get("state_dict", state)
    for theirs, ours in WIDE.items():
        state = {k.replace(theirs, ours): v for k, v in state.items()}
    state = {k.replace("batch_norm.", "bn1."): v.float() for k, v in state.items()}
    network.load_state_dict(state, strict=False)
    return network.eval()


def inputs(name: str, pixels: np.ndarray) -> torch.Tensor:
    mean, std = CIFAR
    if name == "deit_tiny16":
        mean, std = IMAGENET
        larger = [Image.fromarray(p).resize((224, 224), Image.Resampling.BICUBIC) for p in pixels]
        pixels = np.stack([np.asarray(p) for p in larger])
    images = (pixels.astype(np.float64) / 255.0 - np.array(mean)) / np.array(std)
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)


def published(file: str, data_dir: Path) -> dict[str, np.ndarray]:
    name, count = PUBLISHED[file]
    with (data_dir / "cifar-10-batches-py" / "test_batch").open("rb") as batch:
        rows = pickle.load(batch, encoding="bytes")
    pixels = np.asarray(rows[b"data"][:count]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    network = load(data_dir / "weights" / file, name)
    with torch.inference_mode():
        parts = [network(inputs(name, part)) for part in np.array_split(pixels, max(1, count // 48))]
    logits, features = (torch.cat(both).numpy() for both in zip(*parts, strict=True))
    right = int((logits.argmax(1) == np.array(rows[b"labels"][:count])).sum())
    return {
        f"published/{name}/logits": logits[:IMAGES],
        f"published/{name}/features": features[:IMAGES],
        f"published/{name}/right": np.array([right, count]),
    }


if __name__ == "__main__":
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in (torch, torchvision, timm, transformers))
    arrays = {"origin": np.array(f"{versions}, float32 on a CPU, tests/golden/make_classifiers.py")}
    for network_name, made in networks().items():
        arrays |= evaluate(network_name, made)
    for weights in PUBLISHED:
        arrays |= published(weights, Path(sys.argv[1]))
    np.savez_compressed(Path(__file__).with_name("classifiers.npz"), **arrays)
