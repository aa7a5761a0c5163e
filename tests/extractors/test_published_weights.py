"""Published weights reach on CIFAR-10's test images what PyTorch reaches on the same files."""

import numpy as np
import pytest

from quantjax import data
from quantjax.convert.classifiers import load_classifier
from quantjax.data.sources import open_source
from quantjax.extractors import BACKBONES, extract, fold, standardise
from quantjax.inference import batched

# percent right, by PyTorch; the WideResNet is an under-trained one
CASES = {
    "resnet20": ("cifar10_resnet20.npz", 91.73),
    "resnet56": ("cifar10_resnet56.npz", 93.39),
    "wrn40_2": ("cifar10_wrn40_2.pt", 89.64),
}


def accuracy(data_dir, name: str) -> float:
    file, _ = CASES[name]
    if file.endswith(".pt"):
        pytest.importorskip("torch", reason="reading .pt needs the torch extra")
    images, labels = data.load(open_source("cifar10", data_dir, "test"))
    backbone = BACKBONES[name]
    model, variables = fold(backbone.build(10), load_classifier(data_dir / "weights" / file, name, 10))
    run = batched(
        lambda weights, x: extract(model, weights, standardise(x, backbone.preprocessing))[0], batch_size=128, shared=1
    )
    return 100.0 * np.mean(run(variables, images).argmax(axis=1) == labels)


def test_resnet20(data_dir):
    assert accuracy(data_dir, "resnet20") == pytest.approx(CASES["resnet20"][1], abs=0.011)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["resnet56", "wrn40_2"])
def test_larger_networks(data_dir, name):
    assert accuracy(data_dir, name) == pytest.approx(CASES[name][1], abs=0.011)
