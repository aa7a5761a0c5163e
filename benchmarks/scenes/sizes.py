"""What the questions of benchmarks/segment.py measure, and what their rows have in common."""

from __future__ import annotations

import os
from typing import Any, NamedTuple


class Size(NamedTuple):
    """What is measured."""

    backbone: str  # of quantjax.extractors.FEATURE_BACKBONES, DINOv2 with registers
    window: tuple[int, int]
    num_classes: int
    components: int  # per class
    channels: int
    token_hidden: int
    density_rows: int
    pixels: int


SIZES = {
    "full": Size("dinov2_vitb14_reg", (518, 1036), 19, 5, 256, 512, 43_808, 20_000_000),
    "small": Size("dinov2_vits14_reg", (56, 112), 19, 5, 32, 32, 2_000, 400_000),
}


def ratios(medians: dict[str, tuple[float, float]], peer: str) -> dict[str, float]:
    """Wall clock and processor time of the peer over ours; nothing without a peer."""
    if peer not in medians:
        return {}
    wall, processor = (medians[peer][i] / medians["quantjax"][i] for i in (0, 1))
    return {"ratio": round(wall, 3), "ratio_processor": round(processor, 3)}


def load() -> dict[str, Any]:
    """How many programs wanted a core in the last minute."""
    return {"load": round(os.getloadavg()[0], 1)}
