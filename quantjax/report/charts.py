"""Charts as inline SVG text, coloured by the style sheet of the page they stand in (light and dark)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 340, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 38
SERIES = 8  # colours of the style sheet; further series repeat them dashed
BINS = 48

Line = tuple[np.ndarray, np.ndarray]


def line_chart(
    lines: Mapping[str, Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    indices: Mapping[str, int] | None = None,
    guide: float | None = None,
    markers: bool = False,
) -> str:
    """Curves y over x; `indices` fixes the colour of each name, `guide` draws a horizontal reference."""
    parts = [_axes(x_range, y_range, x_label, y_label)]
    if guide is not None:
        y = _y(guide, y_range)
        parts.append(f'<path class="guide" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
    for position, (name, (x, y)) in enumerate(lines.items()):
        index = position if indices is None else indices[name]
        points = list(zip(_x(np.asarray(x), x_range), _y(np.asarray(y), y_range), strict=True))
        path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        parts.append(f'<path class="line {series_class(index)}" d="{path}"><title>{escape(name)}</title></path>')
        if markers and len(points) <= 60:
            dots = "".join(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.2"/>' for px, py in points)
            parts.append(f'<g class="dots {series_class(index)}">{dots}</g>')
    return _svg(title, parts)


def histogram_chart(inlier: np.ndarray, outlier: np.ndarray, threshold: float | None, *, title: str) -> str:
    """Shares of inliers [N] and outliers [M] over the score; the end bins hold everything beyond the axis.

    The height fits the inliers and the inner bins; a taller end bin is cut off and its share written beside it.
    """
    inlier, outlier = ordered(inlier), ordered(outlier)
    low, high = score_range(inlier, outlier, threshold)
    edges = np.linspace(low, high, BINS + 1)
    shares = [100.0 * np.histogram(np.clip(s, low, high), edges)[0] / len(s) for s in (inlier, outlier)]
    y_range = (0.0, nice_ceiling(max(float(shares[0].max()), float(shares[1][1:-1].max()))))
    parts = [_axes((low, high), y_range, "Score (higher = more outlying)", "Share of images (%)")]
    for name, share in zip(("inlier", "outlier"), shares, strict=True):
        parts.append(_steps(name, edges, np.minimum(share, y_range[1]), y_range))
    for index, anchor, x in ((0, "start", LEFT + 10), (-1, "end", WIDTH - RIGHT - 10)):
        held = float(shares[1][index])
        if held > y_range[1]:
            parts.append(f'<text class="beyond" x="{x}" y="{TOP + 12}" text-anchor="{anchor}">{held:.0f} %</text>')
    if threshold is not None:
        line = f'd="M{_x(min(max(threshold, low), high), (low, high)):.1f} {TOP}V{HEIGHT - BOTTOM}"'
        parts.append(f'<path class="threshold" {line}/>')
        parts.append(f'<path class="hit" {line}><title>threshold {threshold:.6g}</title></path>')
    return _svg(title, parts)


def _steps(name: str, edges: np.ndarray, share: np.ndarray, y_range: tuple[float, float]) -> str:
    limits = (float(edges[0]), float(edges[-1]))
    steps = "".join(
        f"L{_x(a, limits):.1f} {_y(s, y_range):.1f}H{_x(b, limits):.1f}"
        for a, b, s in zip(edges[:-1], edges[1:], share, strict=True)
    )
    base = _y(0.0, y_range)
    return f'<path class="area {name}" d="M{LEFT} {base:.1f}{steps}V{base:.1f}Z"/>'


def roc_points(inlier: np.ndarray, outlier: np.ndarray, samples: int = 120) -> Line:
    """(share of outliers accepted, share of inliers accepted) in percent over at most 2 samples + 1 thresholds."""
    inlier, outlier = ordered(inlier), ordered(outlier)
    levels = np.linspace(0.0, 1.0, samples)
    thresholds = np.unique(np.concatenate([np.quantile(s, levels, method="nearest") for s in (inlier, outlier)]))
    shares = [100.0 * np.searchsorted(np.sort(s), thresholds, side="right") / len(s) for s in (outlier, inlier)]
    return np.concatenate([[0.0], shares[0]]), np.concatenate([[0.0], shares[1]])


def score_range(inlier: np.ndarray, outlier: np.ndarray, threshold: float | None) -> tuple[float, float]:
    """An axis that shows the inliers well and cuts tails further than three of their widths away."""
    pooled = np.concatenate([inlier, outlier])
    pooled = pooled[np.isfinite(pooled)]
    finite = inlier[np.isfinite(inlier)]
    if not len(pooled):
        pooled = np.zeros(1)
    left, right = np.quantile(finite if len(finite) else pooled, [0.01, 0.99])
    width = float(right - left) or abs(float(left)) or 1.0
    low = max(float(pooled.min()), float(left) - 3.0 * width)
    high = min(float(pooled.max()), float(right) + 3.0 * width)
    if threshold is not None and math.isfinite(threshold):
        low, high = min(low, threshold), max(high, threshold)
    return (low, high) if high > low else (low - 0.5 * width, high + 0.5 * width)


def ordered(scores: np.ndarray) -> np.ndarray:
    """Scores [N] as float64 that can be compared: NaN becomes the most outlying."""
    scores = np.asarray(scores, np.float64)
    return np.where(np.isnan(scores), np.inf, scores)


def nice_ceiling(value: float) -> float:
    """The smallest of 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10 times a power of ten that is not below `value`."""
    if value <= 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 20) if m * power >= value * (1 - 1e-9))


def series_class(index: int) -> str:
    """CSS classes of the colour and dash of series `index`."""
    return f"s{index % SERIES}" + (" dashed" if index >= SERIES else "")


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers inside [low, high]."""
    step = (high - low) / about
    power = 10.0 ** math.floor(math.log10(step))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _x(value, limits):
    return LEFT + (value - limits[0]) / (limits[1] - limits[0]) * (WIDTH - LEFT - RIGHT)


def _y(value, limits):
    return HEIGHT - BOTTOM - (value - limits[0]) / (limits[1] - limits[0]) * (HEIGHT - TOP - BOTTOM)


def _axes(x_range: tuple[float, float], y_range: tuple[float, float], x_label: str, y_label: str) -> str:
    parts = []
    for value in ticks(*y_range):
        y = _y(value, y_range)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_number(value)}</text>')
    for value in ticks(*x_range):
        x = _x(value, x_range)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{_number(value)}</text>'
        )
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="label" x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    height = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="translate(11 {height:.0f}) rotate(-90)"'
    parts.append(f'<text class="label" text-anchor="middle" {turned}>{escape(y_label)}</text>')
    return "".join(parts)


def _number(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return f"{value:.6g}"


def _svg(title: str, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg>'
