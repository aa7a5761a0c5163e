"""Record losses of classifiers beside outliers, as torch computes them. Run: python tests/golden/make_exposure.py"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

rng = np.random.default_rng(21)
logits = (6 * rng.normal(size=(7, 4))).astype(np.float32)
labels = rng.integers(0, 4, size=7)
weights = np.array([0.5, 2.0, -1.0, 1.0], np.float32)


def energy(f):
    return -torch.logsumexp(f, dim=1)


def weighted(f):
    return -torch.log((functional.relu(torch.tensor(weights)) * torch.exp(f)).sum(dim=1))


def logit_norm(f):
    scaled = functional.normalize(f, p=2.0, dim=1, eps=0.0) / 0.04
    return functional.cross_entropy(scaled, torch.tensor(labels), reduction="none")


def uniform(f):
    return functional.cross_entropy(f, torch.full(f.shape, 1.0 / f.shape[1]), reduction="none")


cases = {
    "logit_norm": logit_norm,
    "uniform_cross_entropy": uniform,
    "energy_above": lambda f: functional.relu(energy(f) + 8.0) ** 2,
    "energy_below": lambda f: functional.relu(-7.0 - energy(f)) ** 2,
    "weighted_energy": weighted,
    "inlier_logistic": lambda f: functional.binary_cross_entropy_with_logits(
        f[:, 0].double(), torch.zeros(len(f)).double(), reduction="none"
    ),
    "outlier_logistic": lambda f: functional.binary_cross_entropy_with_logits(
        f[:, 0].double(), torch.ones(len(f)).double(), reduction="none"
    ),
}
recorded: dict[str, np.ndarray] = {}
for name, loss in cases.items():
    given = torch.tensor(logits, requires_grad=True)
    values = loss(given)
    values.sum().backward()
    recorded[name], recorded[f"{name}/gradient"] = values.detach().numpy(), given.grad.numpy()
np.savez_compressed(
    Path(__file__).parent / "exposure.npz",
    origin=f"torch {torch.__version__}, float32 on a CPU, logistic losses in float64",
    logits=logits,
    labels=labels.astype(np.int32),
    weights=weights,
    **recorded,
)
