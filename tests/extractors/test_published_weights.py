"""Published weights judge CIFAR-10's test images as PyTorch judges them with the same files."""

import numpy as np
import pytest

from quantjax.convert.classifiers import load_classifier
from quantjax.data.sources import open_source
from quantjax.extractors import BACKBONES, extract, fold, standardise
from quantjax.inference import batched

COUNTED = 1000  # the first ones
FILES = {
    "resnet20": "cifar10_resnet20.npz",
    "resnet56": "cifar10_resnet56.npz",
    "wrn40_2": "cifar10_wrn40_2.pt",  # an under-trained one
}


@pytest.mark.parity
@pytest.mark.parametrize("name", FILES)
def test_as_many_images_are_right(data_dir, golden, name):
    source = open_source("cifar10", data_dir, "test")
    rows = [source[i] for i in range(COUNTED)]
    images, labels = (np.stack([row[key] for row in rows]) for key in ("image", "label"))
    backbone = BACKBONES[name]
    model, variables = fold(backbone.build(10), load_classifier(data_dir / "weights" / FILES[name], name, 10))
    run = batched(
        lambda weights, x: extract(model, weights, standardise(x, backbone.preprocessing))[0], batch_size=125, shared=1
    )
    found = int(np.sum(run(variables, images).argmax(axis=1) == labels))
    assert abs(found - int(golden("extractors")[f"published/{name}/right"])) <= 1
