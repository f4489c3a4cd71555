"""Frames for people: enlarges what an image model has in mind, draws bars for what a vector model has in mind. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamgym.structs import Observation

__all__ = ["draw_bars", "enlarge", "frame"]

_PAPER, _AXIS = (250, 250, 248), (190, 190, 190)
_ABOVE, _BELOW = (38, 110, 180), (214, 98, 40)


def frame(obs: Observation, space: spaces.Space[Any], size: int, *, stack: int = 1) -> NDArray[np.uint8]:
    """A picture [Y,X,3] uint8 of one observation, at least `size` pixels high and wide.

    Of a Dict the first image, or without images all its vectors side by side; of a stack of images the last one.
    """
    parts = sorted(obs.items()) if isinstance(obs, dict) else [("", obs)]
    for _, part in parts:
        if np.ndim(part) == 3:
            return enlarge(part[..., -(part.shape[2] // stack) :], size)
    bars = [_bars(part, space[name] if isinstance(space, spaces.Dict) else space) for name, part in parts]
    values, low, high = (np.concatenate(each) for each in zip(*bars))
    return draw_bars(values, low, high, size)


def _bars(part: NDArray[Any], space: spaces.Space[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Values, lowest and highest values; a class is one-hot."""
    if isinstance(space, spaces.Discrete):
        classes = np.arange(space.n)
        return (classes == part - space.start).astype(np.float32), 0.0 * classes, 0.0 * classes + 1.0
    assert isinstance(space, spaces.Box)
    return part.reshape(-1), space.low.reshape(-1), space.high.reshape(-1)


def enlarge(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Repeat pixels a whole number of times until both sides reach `size`: [Y,X,C] -> [Y*n,X*n,3]. Grey becomes RGB."""
    times = max(1, -(-size // min(image.shape[:2])))
    colour = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, :3]
    return np.repeat(np.repeat(colour, times, axis=0), times, axis=1)


def draw_bars(values: NDArray[Any], low: NDArray[Any], high: NDArray[Any], size: int) -> NDArray[np.uint8]:
    """One bar per dimension, up for positive, down for negative, full height at its bound (or at 3, where there is none)."""
    picture = np.full((size, size, 3), _PAPER, np.uint8)
    middle, reach = size // 2, int(size * 0.45)
    picture[middle] = _AXIS
    bound = np.maximum(np.abs(low.astype(np.float64)), np.abs(high.astype(np.float64)))
    scale = np.where((bound > 0) & (bound < 1e6), bound, 3.0)
    heights = np.rint(np.clip(values / scale, -1.0, 1.0) * reach).astype(int)
    edges = np.linspace(0, size, len(values) + 1).astype(int)
    for height, left, right in zip(heights, edges[:-1], edges[1:]):
        gap = (right - left) // 6
        top, bottom = (middle - height, middle) if height > 0 else (middle + 1, middle + 1 - height)
        picture[top:bottom, left + gap : max(right - gap, left + gap + 1)] = _ABOVE if height > 0 else _BELOW
    return picture
