"""Write flows.npz: FrEIA 0.2 state dicts of all four coupling types with their z and log-determinants in float32.

Run: python tests/golden/make_flows.py   (needs the parity extra)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from freia_flows import KINDS, build

LAYOUT = {"glow": (7, 3, 2), "realnvp": (6, 2, 1), "gin": (7, 2, 0), "nice": (6, 3, 2)}  # D, blocks, layers
WIDTH, ROWS = 8, 16


def record(kind: str) -> dict[str, np.ndarray]:
    dimension, blocks, layers = LAYOUT[kind]
    torch.manual_seed(sum(map(ord, kind)))
    flow = build(kind, dimension, blocks, layers, WIDTH)
    x = 3 * torch.randn(ROWS, dimension) + 1
    flow(x)  # the first batch initialises ActNorm
    flow.eval()
    with torch.no_grad():
        z, log_det = flow(x)
    entries = {f"{kind}/state/{name}": value.numpy() for name, value in flow.state_dict().items()}
    log_det = np.broadcast_to(np.asarray(log_det, np.float32), (ROWS,))
    return entries | {f"{kind}/x": x.numpy(), f"{kind}/z": z.numpy(), f"{kind}/log_det": log_det}


def main() -> None:
    arrays: dict[str, np.ndarray] = {
        "origin": np.array(f"FrEIA 0.2, torch {torch.__version__.split('+')[0]}, make_flows.py")
    }
    for kind in KINDS:
        arrays |= record(kind)
    np.savez_compressed(Path(__file__).with_name("flows.npz"), **arrays)


if __name__ == "__main__":
    main()
