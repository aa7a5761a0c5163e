"""Weights that goldens and tests draw alike, without storing them."""

from __future__ import annotations

import numpy as np


def random_state(names: list[str], shapes: list[tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Weights that a test can make again without torch: NumPy's RandomState repeats for ever."""
    draw = np.random.RandomState(seed)
    state = {}
    for name, shape in zip(names, shapes, strict=True):
        normal = draw.standard_normal(shape).astype(np.float32)
        if len(shape) > 1:
            state[name] = normal * np.float32(np.sqrt(2.0 / np.prod(shape[1:])))
        elif name.endswith("running_var"):
            state[name] = np.float32(0.5) + np.abs(normal)
        else:
            state[name] = np.float32(0.2) * normal + np.float32(name.endswith("weight"))
    return state


def sample(array: np.ndarray) -> np.ndarray:
    """At most 64 evenly spaced entries and the norm, in place of a large array."""
    flat = array.reshape(-1)
    return np.append(flat[:: max(1, flat.size // 64)][:64], np.linalg.norm(flat.astype(np.float64))).astype(np.float32)
