"""Reasons not to trust a detector, from numbers that its fitting and its evaluation leave behind."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

CHANCE = 0.5
LIKELY, MOST = 0.95, 0.5  # a threshold that keeps LIKELY of the training rows must not lose MOST of other inliers


def doubts(
    method: str,
    auroc: Mapping[str, float],
    *,
    training: np.ndarray | None = None,
    held_out: np.ndarray | None = None,
) -> list[str]:
    """What is wrong with a detector of `method`, in words that follow its name; empty when nothing is known to be.

    auroc are average AUROCs by method, 0..1, on known outliers; it may be empty. training and held_out are a density's
    scores [N] and [M] of its training rows and of other inliers, higher = more outlying; NaN counts as outlying.
    """
    found = []
    if method in auroc and auroc[method] < CHANCE:
        found.append(f"orders known outliers worse than chance (AUROC {100 * auroc[method]:.1f} %)")
    if training is not None and held_out is not None:
        lost = float(np.mean(~(held_out <= np.quantile(training, LIKELY))))
        if lost > MOST:
            found.append(
                f"gives {100 * lost:.0f} % of the held-out inliers less likelihood than {100 * LIKELY:.0f} % of its "
                "training rows have (it has learned these by heart)"
            )
    return found


def better(method: str, auroc: Mapping[str, float]) -> str | None:
    """The other method with the highest of these AUROCs, 0..1; None when none is better than chance and than this."""
    rivals = {name: value for name, value in auroc.items() if value > max(CHANCE, auroc.get(method, 0.0))}
    return max(rivals, key=lambda name: rivals[name], default=None)
