"""A PyTorch program that scores images the way the QuantOD authors time it: one Python loop per method and data set.

The loop reads batches of 128 from a DataLoader with one worker, runs the network eagerly and scores each batch on its
own; Mahalanobis and GEM also fit their Gaussians inside the timed span (Taghikhah et al., AAAI 2024, Table 1).
Networks run in evaluation mode here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

BATCH = 128


class Images(Dataset):
    """Rows of a random-access source, decoded and standardised one at a time."""

    def __init__(self, rows: Any, fit: Callable[[np.ndarray], np.ndarray], mean: Sequence[float], std: Sequence[float]):
        self.rows, self.fit = rows, fit
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = torch.from_numpy(np.ascontiguousarray(self.fit(self.rows[index]["image"]).transpose(2, 0, 1)))
        return (image.float() / 255 - self.mean) / self.std


def loader(images: Images, workers: int = 1) -> DataLoader:
    """Batches in order; 0 workers read in this process."""
    # forkserver: forking a process whose threads are at work may lock up
    options: dict[str, Any] = {"multiprocessing_context": "forkserver", "persistent_workers": True} if workers else {}
    return DataLoader(images, batch_size=BATCH, num_workers=workers, shuffle=False, **options)


def scores_of(network: nn.Module, batches: DataLoader, score: Callable[..., torch.Tensor], device: str) -> np.ndarray:
    """One method's score of every image, batch by batch."""
    return np.concatenate([score(network, batch.to(device)).detach().cpu().numpy() for batch in batches])


def timed_loop(
    network: nn.Module, sets: Sequence[Images], score: Callable[..., torch.Tensor], device: str
) -> tuple[float, list]:
    """Wall-clock seconds of the loop over all sets, loading included, and the scores."""
    start = time.perf_counter()
    scores = [scores_of(network, loader(images), score, device) for images in sets]
    return time.perf_counter() - start, scores


@torch.no_grad()
def msp(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return -F.softmax(network(images)[0], dim=1).max(1).values


@torch.no_grad()
def energy(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return -torch.logsumexp(network(images)[0], dim=1)


def odin(std: Sequence[float], temperature: float = 1000.0, epsilon: float = 0.0048) -> Callable[..., torch.Tensor]:
    def score(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        images = images.requires_grad_(True)
        logits = network(images)[0] / temperature
        F.cross_entropy(logits, logits.argmax(1)).backward()
        step = images.grad.sign() / torch.tensor(std, device=images.device).view(1, 3, 1, 1)
        with torch.no_grad():
            return -F.softmax(network(images - epsilon * step)[0] / temperature, dim=1).max(1).values

    return score


@torch.no_grad()
def fit_gaussians(network: nn.Module, images: Images, labels: np.ndarray, num_classes: int, device: str) -> tuple:
    """Class means and the precision of one tied covariance, from one loop over the training images."""
    features = torch.cat([network(batch.to(device))[1] for batch in loader(images)])
    target = torch.from_numpy(labels).to(device)
    means = torch.stack([features[target == k].mean(0) for k in range(num_classes)])
    centred = torch.cat([features[target == k] - means[k] for k in range(num_classes)])
    covariance = centred.T @ centred / len(centred) + 1e-6 * torch.eye(centred.shape[1], device=device)
    return means, torch.linalg.inv(covariance)


def gaussian_terms(features: torch.Tensor, means: torch.Tensor, precision: torch.Tensor) -> torch.Tensor:
    """-1/2 (f - mu_k)^T P (f - mu_k) per class: the diagonal of a full B x B product, as the authors compute it."""
    columns = [-0.5 * torch.mm(torch.mm(features - mean, precision), (features - mean).t()).diag() for mean in means]
    return torch.stack(columns, dim=1)


def mahalanobis(means: torch.Tensor, precision: torch.Tensor) -> Callable[..., torch.Tensor]:
    @torch.no_grad()
    def score(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return -gaussian_terms(network(images)[1], means, precision).max(1).values

    return score


def gem(means: torch.Tensor, precision: torch.Tensor) -> Callable[..., torch.Tensor]:
    @torch.no_grad()
    def score(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return -torch.logsumexp(gaussian_terms(network(images)[1], means, precision), dim=1)

    return score


def quantod(flow: nn.Module) -> Callable[..., torch.Tensor]:
    @torch.no_grad()
    def score(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        z, log_det = flow(network(images)[1])
        return 0.5 * (z**2).sum(1) + 0.5 * z.shape[1] * float(np.log(2 * np.pi)) - log_det

    return score
