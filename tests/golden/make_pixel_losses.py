"""Make pixel_losses.npz: PEBAL's and RbA's losses, cross-entropies and dense scores in PyTorch, with gradients.

python tests/golden/make_pixel_losses.py        (needs torch; seconds)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

CLASSES = 4


def pebal(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """logits [B, K + 1, H, W]; selections by mask as the paper writes them."""
    p = logits.softmax(1)
    energy = -logits[:, :-1].logsumexp(1)
    offsets = torch.arange(-3, 4, dtype=torch.float64)
    line = torch.exp(-offsets.square() / 2)
    kernel = torch.outer(line, line) / torch.outer(line, line).sum()
    squares = F.pad(energy.square()[:, None], (3, 3, 3, 3), mode="reflect")
    abstain = p[:, -1] / F.conv2d(squares, kernel.to(logits)[None, None])[:, 0]
    outlier, inlier = labels == 254, labels < CLASSES
    own = p.gather(1, torch.where(inlier, labels, 0)[:, None])[:, 0]
    loss = -(own + abstain)[inlier].log().mean()
    hinge = F.relu(energy[inlier] + 12).square().mean()
    if outlier.any():
        everyone = (p[:, :-1] + abstain[:, None]).permute(0, 2, 3, 1)[outlier]
        loss = loss - 0.1 * everyone.clamp(min=1e-7).log().mean()
        hinge = 0.5 * (hinge + F.relu(-6 - energy[outlier]).square().mean()) + 5e-4 * energy[outlier].norm()
    rough = (energy[:, 1:] - energy[:, :-1]).square().sum() + (energy[:, :, 1:] - energy[:, :, :-1]).square().sum()
    return loss + 0.1 * (hinge + 3e-6 * rough / 2)


def rba(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    score, outlier = -logits.tanh().sum(1), labels == 254
    inlier = F.relu(score[labels < CLASSES]).square().mean()
    return 0.5 * (inlier + F.relu(5 - score[outlier]).square().mean()) if outlier.any() else inlier


def main() -> None:
    rng = np.random.RandomState(5)
    logits = (6 + 5 * rng.standard_normal((3, 6, 9, CLASSES + 1))).astype(np.float32)
    labels = rng.choice([0, 1, 2, 3, 254, 255], (3, 6, 9)).astype(np.uint8)
    golden = {"logits": logits, "labels": labels, "llr": logits[..., 0]}
    for name, loss, channels in (("pebal", pebal, CLASSES + 1), ("rba", rba, CLASSES)):
        scale = 1.0 if name == "pebal" else 0.1
        for case, kept in (("mixed", labels), ("inliers", np.where(labels == 254, 255, labels))):
            given = torch.tensor(scale * logits[..., :channels], requires_grad=True)
            value = loss(given.permute(0, 3, 1, 2), torch.from_numpy(kept).long())
            value.backward()
            golden |= {f"{name}/{case}": value.item(), f"{name}/{case}/gradient": given.grad.numpy()}
    classes = torch.from_numpy(np.where(labels == 254, 255, labels)).long()
    channels_first = torch.from_numpy(logits[..., :CLASSES]).permute(0, 3, 1, 2)
    golden["cross_entropy"] = F.cross_entropy(channels_first, classes, ignore_index=255, reduction="none").numpy()
    targets = torch.from_numpy((labels == 254).astype(np.float32))
    binary = F.binary_cross_entropy_with_logits(torch.from_numpy(golden["llr"]), targets, reduction="none")
    golden["binary"] = np.where(labels == 255, 0.0, binary.numpy()).astype(np.float32)
    p = channels_first.double().softmax(1)
    golden["entropy"] = (-(p * p.log()).sum(1) / np.log(CLASSES)).numpy()
    golden["rba_score"] = -channels_first.double().tanh().sum(1).numpy()
    origin = f"torch {torch.__version__}, float32 on a CPU"
    np.savez_compressed(Path(__file__).parent / "pixel_losses.npz", origin=origin, **golden)


if __name__ == "__main__":
    main()
