"""Record real features and the AUROC that NumPy finds. Run: python tests/golden/make_real_features.py

Needs the folder QUANTJAX_DATA_DIR: CIFAR-10, five sets of outliers, and weights/cifar10_wrn16_2_seed0.pth (a
WideResNet-16-2 with 128 features, 94.2 %). 120 training images of each class, 400 test images and 80 of each outlier
set, drawn by seed 0; features in float16, the last layer as it is. Scores here: NumPy in float64; AUROC: scikit-learn.
"""

import os
from pathlib import Path

import numpy as np
import sklearn
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from quantjax.convert import load_classifier
from quantjax.data import load, open_source
from quantjax.extractors import BACKBONES, CIFAR, extract, standardise
from quantjax.inference import batched

DATA = Path(os.environ["QUANTJAX_DATA_DIR"])
OUTLIERS = ("textures", "chars74k", "tiny_imagenet", "scenes_crop", "cifar100")
draws = np.random.default_rng(0)
variables = load_classifier(DATA / "weights" / "cifar10_wrn16_2_seed0.pth", "wrn16_2", 10)
model = BACKBONES["wrn16_2"].build(10)
run = batched(lambda weights, x: extract(model, weights, standardise(x, CIFAR))[1], batch_size=128, shared=1)


def seen(images):
    return np.asarray(run(variables, images), np.float16)


def some(images, count):
    return images[np.sort(draws.permutation(len(images))[:count])]


images, labels = load(open_source("cifar10", DATA, "train"), size=32)
rows = np.concatenate([some(np.flatnonzero(labels == k), 120) for k in range(10)])
found = {"train": seen(images[rows]), "labels": labels[rows].astype(np.int32)}
found["inlier"] = seen(some(load(open_source("cifar10", DATA, "test"), size=32)[0], 400))
outliers = [seen(some(load(open_source(name, DATA, "test"), size=32)[0], 80)) for name in OUTLIERS]
found["outliers"] = np.concatenate(outliers)
head = variables["params"]["head"]["linear"]
found["weight"], found["bias"] = np.asarray(head["kernel"], np.float32), np.asarray(head["bias"], np.float32)

f, new = found["train"].astype(float), np.concatenate([found["inlier"], found["outliers"]]).astype(float)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def mahalanobis(train, queries):
    means = np.stack([train[found["labels"] == k].mean(0) for k in range(10)])
    away = train - means[found["labels"]]
    covariance = away.T @ away / len(away)
    precision = np.linalg.inv(covariance + 1e-6 * np.diag(np.diag(covariance)))
    return np.min([np.einsum("nd,de,ne->n", queries - m, precision, queries - m) for m in means], axis=0)


logits = new @ found["weight"] + found["bias"]
shifted = np.exp(logits - logits.max(1, keepdims=True))
scores = {
    "msp": -shifted.max(1) / shifted.sum(1),
    "max_logit": -logits.max(1),
    "energy": -np.log(shifted.sum(1)) - logits.max(1),
    "mahalanobis": mahalanobis(f, new),
    "mahalanobis_pp": mahalanobis(unit(f), unit(new)),
    "knn": NearestNeighbors(n_neighbors=10).fit(unit(f[::5])).kneighbors(unit(new))[0][:, -1],
}
truth = np.arange(len(new)) >= len(found["inlier"])
found["methods"] = np.array(list(scores))
found["auroc"] = np.array([100.0 * roc_auc_score(truth, score) for score in scores.values()])
found["origin"] = np.array(f"numpy {np.__version__}, scikit-learn {sklearn.__version__}")
np.savez_compressed(Path(__file__).parent / "real_features.npz", **found)
print(dict(zip(scores, found["auroc"].round(2), strict=True)))
