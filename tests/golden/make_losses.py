"""Record torch.quantile, its gradient, and torch's cross-entropy. Run: python tests/golden/make_losses.py"""

from pathlib import Path

import numpy as np
import torch

rng = np.random.default_rng(12)
QS = np.array([0.0, 0.05, 0.25, 0.5, 0.731, 0.999])
rows = {
    "one": rng.normal(size=1),
    "two": rng.normal(size=2),
    "even": 40 * rng.normal(size=20) - 90,
    "odd": 40 * rng.normal(size=21) - 90,
    "batch": 40 * rng.normal(size=128) - 90,
    "ties": rng.integers(-3, 3, size=30).astype(float),
}
recorded: dict[str, np.ndarray] = {"qs": QS, "names": np.array(list(rows))}
for name, row in rows.items():
    recorded[name] = row.astype(np.float32)
    for i, q in enumerate(QS):
        values = torch.tensor(recorded[name], requires_grad=True)
        quantile = torch.quantile(values, float(q))
        quantile.backward()
        recorded[f"{name}_value_{i}"] = quantile.detach().numpy()
        recorded[f"{name}_gradient_{i}"] = values.grad.numpy()

logits = (5 * rng.normal(size=(6, 4))).astype(np.float32)
labels = rng.integers(0, 4, size=6)
losses = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels), reduction="none")
np.savez_compressed(
    Path(__file__).parent / "losses.npz",
    origin=f"torch {torch.__version__}, float32 on a CPU",
    logits=logits,
    labels=labels.astype(np.int32),
    cross_entropy=losses.numpy(),
    **recorded,
)
