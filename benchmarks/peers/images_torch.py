"""The classifier's scoring and training as one would write them in PyTorch for speed; all data lie on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.peers.quantod_torch import odin


def network(name: str, classes: int) -> tuple[nn.Module, dict[str, np.ndarray]]:
    """The classifier in evaluation mode with random weights, and its state dict."""
    from random_weights import random_state
    from torch_networks import build

    built = build(name, classes).eval()
    shapes = {k: tuple(v.shape) for k, v in built.state_dict().items() if v.is_floating_point()}
    state = random_state(list(shapes), list(shapes.values()))
    built.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=False)
    return built.requires_grad_(False), state


def standardised(images: np.ndarray, mean: Any, std: Any, device: str) -> Callable[[], torch.Tensor]:
    """A function that standardises images uint8, which lie on the device, into channels-last memory."""
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (mean, std))
    return lambda: (pixels.float() / 255 - mean) / std


class Half(nn.Module):
    """A network under bfloat16 autocast, where `half` says so, its results in float32."""

    def __init__(self, inner: nn.Module, half: bool, device: str):
        super().__init__()
        self.inner, self.half, self.device = inner.to(device, memory_format=torch.channels_last), half, device

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            logits, features = self.inner(images)
        return logits.float(), features.float()


class Fitted(NamedTuple):
    """What the scores of features read, on the device: one Gaussian per class, one for all, a bank, a flow."""

    whitening: torch.Tensor
    means: torch.Tensor
    centre: torch.Tensor
    background_whitening: torch.Tensor
    background: torch.Tensor
    bank: torch.Tensor
    flow: Any  # None where FrEIA is missing


def half_distances(features: torch.Tensor, whitening: torch.Tensor, centre: torch.Tensor, means: torch.Tensor) -> Any:
    whitened = (features - centre) @ whitening.T
    return 0.5 * torch.cdist(whitened, means, compute_mode="use_mm_for_euclid_dist") ** 2


def scores(logits: torch.Tensor, features: torch.Tensor, fitted: Fitted) -> list[torch.Tensor]:
    """Every score that needs no gradient; the flow's only where there is one."""
    distances = half_distances(features, fitted.whitening, fitted.centre, fitted.means)
    background = half_distances(features, fitted.background_whitening, fitted.centre, fitted.background)[:, 0]
    nearest = distances.min(1).values
    cosines = F.normalize(features) @ fitted.bank.T
    found = [-F.softmax(logits, 1).max(1).values, -logits.max(1).values, -torch.logsumexp(logits, 1)]
    found += [nearest, nearest - background, -torch.logsumexp(-distances, 1), 1 - cosines.topk(10).values[:, -1]]
    if fitted.flow is not None:
        z, log_det = fitted.flow(features)
        found.append(0.5 * (z * z).sum(1) + 0.5 * z.shape[1] * float(np.log(2 * np.pi)) - log_det)
    return found


def perturbed(net: nn.Module, images: torch.Tensor, fitted: Fitted, std: Any, epsilon: float = 0.0005) -> list[Any]:
    """ODIN and the Mahalanobis distance after their steps of the input; needs gradients to be possible."""
    moved = images.detach().requires_grad_(True)
    distance = half_distances(net(moved)[1], fitted.whitening, fitted.centre, fitted.means).min(1).values
    (gradient,) = torch.autograd.grad(distance.sum(), moved)
    with torch.no_grad():
        step = gradient.sign() / torch.tensor(std, device=images.device).view(1, 3, 1, 1)
        features = net(images - epsilon * step)[1]
        far = half_distances(features, fitted.whitening, fitted.centre, fitted.means).min(1).values
    return [odin(std)(net, images.detach()), far]


class Training:
    """Stage 1: flip, crop, standardise, forward, backward, SGD with Nesterov momentum; data stay on the device."""

    def __init__(self, net: nn.Module, images: np.ndarray, labels: np.ndarray, mean: Any, std: Any, device: str):
        self.images = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(labels.astype(np.int64)).to(device)
        self.mean, self.std = (
            torch.tensor(v, device=device, dtype=torch.float32).view(1, 3, 1, 1) for v in (mean, std)
        )
        self.net, self.device = net.train().requires_grad_(True), device
        options = {"fused": True} if device == "cuda" else {}
        self.sgd = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True, **options)

    def augmented(self, rows: torch.Tensor) -> torch.Tensor:
        """Flipped and shifted by up to four pixels, as torchvision does it, the whole batch at once."""
        batch, (count, side) = self.images[rows].float(), (len(rows), self.images.shape[-1])
        flip = torch.rand(count, 1, 1, 1, device=self.device) < 0.5
        padded = F.pad(torch.where(flip, batch.flip(3), batch), (4, 4, 4, 4))
        top, left = torch.randint(0, 9, (2, count, 1), device=self.device)
        lines = torch.arange(side, device=self.device)[None]
        row = torch.arange(count, device=self.device)[:, None, None]
        cut = padded.permute(0, 2, 3, 1)[row, (top + lines)[:, :, None], (left + lines)[:, None, :]]
        return (cut.permute(0, 3, 1, 2) / 255 - self.mean) / self.std

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.net(self.augmented(rows))[0], self.labels[rows])

    def steps(self, loss: Callable[..., torch.Tensor], batches: torch.Tensor) -> torch.Tensor:
        """One optimiser step for every row of batches [S, B]."""
        value = torch.zeros((), device=self.device)
        for rows in batches:
            self.sgd.zero_grad(set_to_none=True)
            value = loss(rows)
            value.backward()
            self.sgd.step()
        return value.detach()
