"""Patch features of inlier scenes as rows that a method can be fitted to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from quantjax.checks import check_shape
from quantjax.inference import batched, starts
from quantjax.patches.network import PatchNetwork, named_features, scaled_names
from quantjax.rows import IGNORED
from quantjax.types import PyTree

Report = Callable[[int, int], None]  # (scenes done, scenes in all)


class PatchRows(NamedTuple):
    """Patches of some scenes."""

    features: dict[str, np.ndarray]
    """By the name of the map, [N, C] float32"""
    labels: dict[str, np.ndarray] | None
    """By the name of the map, [N] int32 in 0..K-1; None for scenes without labels"""


def patch_rows(
    network: PatchNetwork,
    variables: PyTree,
    scenes: Sequence[Any],
    *,
    window: tuple[int, int],
    batch_size: int = 8,
    labelled: bool = False,
    products: str | None = None,
    devices: Sequence[Any] | None = None,
    report: Report | None = None,
) -> PatchRows:
    """Features of all patches of `scenes`: images uint8 [H, W, 3], or {"image", "label"}.

    Scenes are cut into windows (pixels) that lie side by side, as far as they fit: one more at the end only where it
    shows more than half a window that the others do not. A scene smaller than the window is filled up with zeros, and
    patches that are not wholly scene are left out. labelled: each patch gets the label uint8 [H, W] at its centre, and
    patches of ignored pixels are left out. products is the precision of the network's matrix products. Raises
    ValueError when there is no scene or no patch, and for shapes that do not fit.
    """
    if not len(scenes):
        raise ValueError("scenes must hold at least one inlier scene, got none")
    run = batched(partial(named_features, network, products), batch_size=batch_size, shared=1, devices=devices)
    features: dict[str, list[np.ndarray]] = {name: [] for name in scaled_names(network)}
    labels: dict[str, list[np.ndarray]] = {name: [] for name in features}
    waiting: list[_Cut] = []  # scenes of few windows share a batch
    for index in range(len(scenes)):
        waiting.append(_cut(*_of_scene(scenes[index], labelled), window))
        if sum(len(cut.corners) for cut in waiting) < batch_size and index + 1 < len(scenes):
            continue
        maps = run(variables, np.concatenate([cut.windows for cut in waiting]))
        ends = np.cumsum([len(cut.corners) for cut in waiting])[:-1]
        for name, found in maps.items():
            for cut, part in zip(waiting, np.split(found, ends), strict=True):
                kept, own = _inside(part.shape[1:3], window, cut)
                features[name].append(part[kept])
                labels[name].append(own)
        waiting = []
        if report:
            report(index + 1, len(scenes))
    rows = {name: np.concatenate(parts) for name, parts in features.items()}
    if not all(map(len, rows.values())):
        raise ValueError(
            f"scenes must hold a whole patch, got none in {len(scenes)} scenes; give larger or labelled ones"
        )
    joined = {name: np.concatenate(parts).astype(np.int32) for name, parts in labels.items()}
    return PatchRows(rows, joined if labelled else None)


def _of_scene(scene: Any, labelled: bool) -> tuple[np.ndarray, np.ndarray | None]:
    image = np.asarray(scene["image"] if isinstance(scene, Mapping) else scene)
    check_shape("a scene", image, "[H, W, 3]")
    if not labelled:
        return image, None
    if not isinstance(scene, Mapping) or "label" not in scene:
        raise ValueError(
            'a scene must be {"image", "label"} where patches are labelled; leave labelled out, or give both'
        )
    label = np.asarray(scene["label"])
    check_shape("label", label, f"[{image.shape[0]}, {image.shape[1]}]")
    return image, label


class _Cut(NamedTuple):
    windows: np.ndarray  # [n, h, w, 3]
    corners: list[tuple[int, int]]
    size: tuple[int, ...]  # of the scene
    label: np.ndarray | None


def _cut(image: np.ndarray, label: np.ndarray | None, window: tuple[int, int]) -> _Cut:
    missing = [(0, max(side - length, 0)) for side, length in zip(window, image.shape, strict=False)]
    canvas = np.pad(image, [*missing, (0, 0)])
    rows, columns = (_side_by_side(*sides) for sides in zip(canvas.shape, window, strict=False))
    corners = [(y, x) for y in rows for x in columns]
    windows = np.stack([canvas[y : y + window[0], x : x + window[1]] for y, x in corners])
    return _Cut(windows, corners, image.shape, label)


def _side_by_side(length: int, window: int) -> list[int]:
    """Where windows begin that touch; the last one overlaps, by less than a half of itself."""
    places = starts(length, window, window)
    return places[:-1] if len(places) > 1 and 2 * (places[-1] - places[-2]) < window else places


def _inside(grid: tuple[int, int], window: tuple[int, int], cut: _Cut) -> tuple[np.ndarray, np.ndarray]:
    """(bool [n, h, w] of patches to keep, labels of those); without label the labels are empty."""
    cells = [side / count for side, count in zip(window, grid, strict=True)]
    ends = [(np.arange(count) + 1) * cell for count, cell in zip(grid, cells, strict=True)]
    kept = np.stack([np.outer(y + ends[0] <= cut.size[0], x + ends[1] <= cut.size[1]) for y, x in cut.corners])
    if cut.label is None:
        return kept, np.zeros(0, np.int32)
    centres = [((np.arange(count) + 0.5) * cell).astype(int) for count, cell in zip(grid, cells, strict=True)]
    beyond = [(0, max(side - length, 0)) for side, length in zip(window, cut.label.shape, strict=True)]
    label = np.pad(cut.label, beyond, constant_values=IGNORED)
    own = np.stack([label[np.ix_(y + centres[0], x + centres[1])] for y, x in cut.corners])
    kept &= own != IGNORED
    return kept, own[kept]
