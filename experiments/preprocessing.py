"""How a publisher prepared images, as flags say it; both commands have these flags."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # it would start JAX, for which --help does not wait
    from quantjax.types import Preprocessing

ChannelOrder = Literal["rgb", "bgr"]
Triple = tuple[float, float, float]


def of_flags(config: Any, otherwise: Preprocessing) -> Preprocessing:
    """`otherwise` with what --mean, --deviation and --channel-order say in its place."""
    order = config.channel_order or otherwise.order
    if config.mean is None:
        return otherwise._replace(order=order)
    full = 255.0 if max(config.mean + config.deviation) > 1.0 else 1.0
    mean, std = (tuple(value / full for value in values) for values in (config.mean, config.deviation))
    return otherwise._replace(mean=mean, std=std, order=order)


def check(config: Any) -> None:
    """Raise ValueError unless mean and deviation are there together, finite and the deviation positive."""
    if (config.mean is None) != (config.deviation is None):
        raise ValueError("--mean and --deviation belong together, each three numbers; give both or none")
    if config.mean is None:
        return
    if not all(map(isfinite, config.mean + config.deviation)) or min(config.deviation) <= 0.0:
        raise ValueError(
            f"--mean and --deviation must be finite and the deviation positive, got {config.mean} {config.deviation}"
        )
