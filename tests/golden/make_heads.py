"""Make heads.npz: the mixture head and pixel losses as plain PyTorch loops over classes and pixels.

python tests/golden/make_heads.py        (needs torch; seconds)
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

CLASSES, PARTS, DIMENSION, SLOTS, LIMIT, EVERY, MOMENTUM, STEPS = 4, 3, 6, 16, 4, 3, 0.9, 7
SHAPE = (2, 6, 8)  # B, h, w


def draws() -> dict[str, np.ndarray]:
    """Start of the state, and features near their class; class 3 is missing in the first steps, class 1 always."""
    rng = np.random.RandomState(3)
    mean = rng.standard_normal((CLASSES, PARTS, DIMENSION)).astype(np.float32)
    mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
    bank = rng.standard_normal((CLASSES * PARTS, SLOTS, DIMENSION)).astype(np.float32)
    bank /= np.linalg.norm(bank, axis=-1, keepdims=True)
    labels = rng.choice([0, 2, 3, 255], (STEPS, *SHAPE), p=[0.5, 0.25, 0.1, 0.15]).astype(np.uint8)
    labels[:3][labels[:3] == 3] = 2
    near = mean[np.minimum(labels, CLASSES - 1), rng.randint(0, PARTS, labels.shape)]
    features = (1.5 + near + 0.3 * rng.standard_normal(near.shape)).astype(np.float32)
    params = {
        "feature_scale": 1 + 0.1 * rng.standard_normal(DIMENSION),
        "feature_bias": 0.1 * rng.standard_normal(DIMENSION),
        "class_scale": 1 + 0.1 * rng.standard_normal(CLASSES),
        "class_bias": 0.1 * rng.standard_normal(CLASSES),
    }
    start = {"mean": mean, "bank": bank, "labels": labels, "features": features}
    return start | {name: value.astype(np.float32) for name, value in params.items()}


def sinkhorn(log_density: torch.Tensor, temperature: float = 0.05, iterations: int = 3) -> torch.Tensor:
    """Hard assignment [n] of one class's pixels [n, M]: rows are components, columns are pixels."""
    plan = torch.exp(log_density / log_density.abs().max() / temperature).t()
    plan = plan / plan.sum()
    for _ in range(iterations):
        plan = plan / plan.sum(1, keepdim=True) / plan.shape[0]
        plan = plan / plan.sum(0, keepdim=True) / plan.shape[1]
    return (plan * plan.shape[1]).argmax(0)


def forward(given: dict[str, torch.Tensor], mean: torch.Tensor, deviation: torch.Tensor, features: torch.Tensor):
    x = F.layer_norm(features, (DIMENSION,), given["feature_scale"], given["feature_bias"], 1e-5)
    x, centre = F.normalize(x, dim=-1), F.normalize(mean, dim=-1)
    distance = ((x[:, None, None] - centre[None]) / deviation[None]).square().sum(-1)
    log_density = -0.5 * DIMENSION * math.log(2 * math.pi) - deviation.log().sum(-1)[None] - 0.5 * distance
    logits = F.layer_norm(log_density.amax(-1), (CLASSES,), given["class_scale"], given["class_bias"], 1e-5)
    return x, log_density, logits


def expectation_maximisation(given: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    mean, bank = given["mean"].clone(), given["bank"].clone()
    deviation, pointer = torch.ones_like(mean), [0] * (CLASSES * PARTS)
    golden: dict[str, np.ndarray] = {}
    for step in range(STEPS):
        features = given["features"][step].reshape(-1, DIMENSION).clone().requires_grad_()
        labels = given["labels"][step].reshape(-1).long()
        x, log_density, logits = forward(given, mean, deviation, features)
        target = torch.full_like(labels, 255)
        present = [k for k in labels.unique().tolist() if k != 255]
        for k in present:
            target[labels == k] = k * PARTS + sinkhorn(log_density.detach()[labels == k, k])
        contrast = F.cross_entropy(log_density.flatten(1), target, ignore_index=255, reduction="none")
        loss = F.cross_entropy(logits, labels, ignore_index=255) + 0.01 * contrast.sum() / (labels != 255).sum()
        loss.backward()
        right = logits.argmax(1) == labels
        for group in [k * PARTS + c for k in present for c in range(PARTS)]:
            rows = x.detach()[(target == group) & right]
            if len(rows) > LIMIT:
                rows = rows[torch.linspace(0, len(rows) - 1, LIMIT).long()]
            for row in rows:
                bank[group, pointer[group]] = row
                pointer[group] = (pointer[group] + 1) % SLOTS
        if step % EVERY == 0:
            for k in present:
                for c in range(PARTS):
                    rows = bank[k * PARTS + c]
                    direction = F.normalize(rows.sum(0), dim=0)
                    mean[k, c] = MOMENTUM * F.normalize(mean[k, c], dim=0) + (1 - MOMENTUM) * direction
                    deviation[k, c] = ((rows - direction).square().mean(0) + 0.01).sqrt()
        golden |= {
            f"step{step}/targets": target.reshape(SHAPE).numpy().astype(np.uint8),
            f"step{step}/logits": logits.detach().numpy().reshape(*SHAPE, CLASSES),
            f"step{step}/gradient": features.grad.numpy().reshape(*SHAPE, DIMENSION),
            f"step{step}/mean": mean.numpy().copy(),
            f"step{step}/deviation": deviation.numpy().copy(),
            f"step{step}/pointer": np.array(pointer, np.int32),
        }
        if step == 0:
            golden |= {"log_density": log_density.detach().numpy(), "contrast": contrast.detach().numpy()}
    return golden | {"bank_after": bank.numpy()}


def large_sinkhorn() -> dict[str, np.ndarray]:
    """Log-densities as a trained head has them: hundreds of nats, tens apart."""
    rng = np.random.RandomState(4)
    classes = rng.choice(5, 3000, p=[0.6, 0.3, 0.09, 0.009, 0.001])
    log_density = (260 + 25 * rng.standard_normal((3000, 5))).astype(np.float32)
    assigned = np.zeros(3000, np.uint8)
    for k in np.unique(classes):
        assigned[classes == k] = sinkhorn(torch.from_numpy(log_density[classes == k])).numpy()
    return {"sinkhorn/assigned": assigned}


def main() -> None:
    given = draws()
    golden = expectation_maximisation({name: torch.from_numpy(value) for name, value in given.items()})
    np.savez_compressed(
        Path(__file__).parent / "heads.npz",
        origin=f"torch {torch.__version__}, loops over classes and pixels, float32 on a CPU",
        **given, **golden, **large_sinkhorn(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
