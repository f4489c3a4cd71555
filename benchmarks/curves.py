"""Learning curves of recorded gates as a picture of their own: SVG written by hand, so that equal records give equal files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Panel", "drawn", "near"]

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


def drawn(panels: Sequence[Panel], *, common: bool = False) -> str:
    """Panels beside one another, as the text of an SVG file; common: all on the same axes."""
    axes = [_axes(panels if common else [panel]) for panel in panels]
    width = WIDTH * len(panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
    ]
    for number, (panel, bounds) in enumerate(zip(panels, axes)):
        lines += [f'<g transform="translate({number * WIDTH} 0)">', *_panel(panel, *bounds), "</g>"]
    return "\n".join([*lines, "</svg>", ""])


def near(seeds: Sequence[Curve], mark: int, *, within: int) -> str:
    """The seeds' mean return within so many env steps of a mark; nothing where a seed has none."""
    found = [[value for steps, value in seed if abs(steps - mark) <= within] for seed in seeds]
    return f"{np.mean([np.mean(values) for values in found]):.0f}" if all(found) else ""


def _axes(panels: Sequence[Panel]) -> tuple[float, float, float]:
    """The last step, the lowest and the highest return to be shown."""
    curves = [curve for panel in panels for curve in panel.seeds]
    points = [np.asarray(panel.published, float) for panel in panels if panel.published]
    shown = np.concatenate([*(_smooth(np.asarray(curve, float)) for curve in curves), *points])
    return shown[:, 0].max(), shown[:, 1].min(), shown[:, 1].max()


def _panel(panel: Panel, last: float, low: float, high: float) -> Iterator[str]:
    curves = [_smooth(np.asarray(curve, float)) for curve in panel.seeds]

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
