"""Rows of street scenes and of the objects pasted into them, and the two labels that are no class.

Plain NumPy: processes that render or decode such rows start without JAX.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

IGNORED = 255  # pixels that no loss and no metric counts
PASTED = 254  # pixels of an object pasted for training


class SceneRow(TypedDict):
    """One scene: of an inlier set labels are 0..K-1, of an evaluation set 0 inlier and 1 anomaly; 255 is ignored."""

    image: np.ndarray
    """[H, W, 3] uint8"""
    label: np.ndarray
    """[H, W] uint8"""
    name: str


class ObjectRow(TypedDict):
    """One thing to paste."""

    image: np.ndarray
    """[h, w, 3] uint8"""
    mask: np.ndarray
    """[h, w] bool, True on the object; no row and no column is all False at the border"""
    name: str
    class_name: str
