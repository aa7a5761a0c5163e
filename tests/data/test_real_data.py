"""The real sets, pixel for pixel: digests of the published uint8 arrays, counts of the others."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from quantjax.data.arrays import load
from quantjax.data.sources import open_source

# sha256 of the uint8 [N, 32, 32, 3] bytes in file order, computed by the program that assembled the arrays.
DIGESTS = {
    ("cifar10", "train"): "1ac08e800b30298d475546ea6748e49bd123fba3e32daf6a5924354945c2f2a0",
    ("cifar10", "test"): "ca999a174ec711bbad89d5cc53d425e155595742a396a5ba95d0a218eac0704a",
    ("cifar100", "test"): "4cb8e5d9309da489bf6b19cc10cd96c3ae6f8daf225380b605aaee4c0d6aee19",
}


@pytest.mark.parametrize(("name", "split"), list(DIGESTS))
def test_cifar_equals_the_published_arrays(data_dir, name, split):
    images, labels = load(open_source(name, data_dir, split=split))
    classes = 10 if name == "cifar10" else 100
    assert hashlib.sha256(images.tobytes()).hexdigest() == DIGESTS[name, split]
    assert (np.bincount(labels) == len(images) // classes).all()
    assert len(np.bincount(labels)) == classes


@pytest.mark.parametrize(("name", "rows", "classes"), [("textures", 1200, 10), ("scenes_crop", 2120, 0)])
def test_image_folders_load_whole(data_dir, name, rows, classes):
    source = open_source(name, data_dir)
    images, labels = load(source)
    assert images.shape == (rows, 32, 32, 3)
    assert len(set(labels.tolist()) - {-1}) == classes
    assert images.reshape(rows, -1).std(1).min() > 0
