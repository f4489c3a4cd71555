"""Learning curves of recorded gates as a picture of their own: SVG written by hand, so that equal records give equal files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Panel", "drawn"]

Curve = Sequence[Sequence[float]]  # (env steps, return)

WIDTH, HEIGHT = 360, 230  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 28, 34
SHADES = ("#1b6ca8", "#5aa9e6", "#0b3954")  # of the seeds
SMOOTHED = 5  # episodes a point is the mean of


@dataclass(frozen=True)
class Panel:
    """One world: returns of training episodes, a curve for each seed, and what others published of the same, if anything."""

    title: str
    seeds: Sequence[Curve]
    published: Curve = ()


def drawn(panels: Sequence[Panel]) -> str:
    """Panels beside one another, as the text of an SVG file."""
    width = WIDTH * len(panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        lines += [f'<g transform="translate({number * WIDTH} 0)">', *_panel(panel), "</g>"]
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel) -> Iterator[str]:
    curves = [_smooth(np.asarray(curve, float)) for curve in panel.seeds]
    shown = np.concatenate([*curves, *([np.asarray(panel.published, float)] if panel.published else [])])
    last, low, high = shown[:, 0].max(), shown[:, 1].min(), shown[:, 1].max()

    def place(steps: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * steps / last
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / max(high - low, 1e-9)
        return f"{x:.1f},{y:.1f}"

    yield f'<text x="{LEFT}" y="16">{panel.title}</text>'
    yield f'<path d="M{LEFT},{TOP} V{HEIGHT - BOTTOM} H{WIDTH - RIGHT}" fill="none" stroke="gray"/>'
    yield f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{high:.0f}</text>'
    yield f'<text x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" text-anchor="end">{low:.0f}</text>'
    yield f'<text x="{LEFT}" y="{HEIGHT - BOTTOM + 16}">0</text>'
    yield f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - BOTTOM + 16}" text-anchor="end">{last:,.0f} env steps</text>'
    for curve, shade in zip(curves, SHADES):
        points = " ".join(place(steps, value) for steps, value in curve)
        yield f'<polyline points="{points}" fill="none" stroke="{shade}" stroke-width="1.5"/>'
    for steps, value in panel.published:
        x, y = place(steps, value).split(",")
        yield f'<circle cx="{x}" cy="{y}" r="4" fill="none" stroke="#c1121f" stroke-width="2"/>'


def _smooth(curve: np.ndarray) -> np.ndarray:
    """Running means [N,2] over SMOOTHED episodes, fewer at the start."""
    sums = np.cumsum(np.concatenate([np.zeros((1, 2)), curve]), 0)
    stop = np.arange(1, len(curve) + 1)
    start = np.maximum(stop - SMOOTHED, 0)
    means = (sums[stop] - sums[start]) / (stop - start)[:, None]
    return np.stack([curve[:, 0], means[:, 1]], 1)
