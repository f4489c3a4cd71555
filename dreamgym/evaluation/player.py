"""Walk in a dream: by keyboard in a window where there is a display, otherwise as a film of an agent's dream."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamgym.errors import require
from dreamgym.evaluation.video import Film, compose, write_video
from dreamgym.structs import Policy

__all__ = ["film_dream", "has_display", "keyboard", "play_by_hand"]


def has_display() -> bool:
    """Whether a window could be opened."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def keyboard(space: spaces.Space[Any]) -> tuple[dict[str, Any], Any]:
    """Which keys do what, as `gymnasium.utils.play` wants it, and the action without a key.

    A Box: a and d push the first dimension down and up, s and w the second, together where both are held; no key is its middle.
    MultiDiscrete: the same with the first and last classes of its choices. Discrete: digits choose a class, counted from 1; a and d
    are the first and the last; no key is the first.
    Raises TypeError for other spaces.
    """
    if isinstance(space, spaces.Discrete):
        start, count = int(space.start), int(space.n)
        digits = {str(index + 1): start + index for index in range(min(9, count))}
        return {**digits, "a": start, "d": start + count - 1}, start
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        low, middle, high = space.start, space.start + (space.nvec - 1) // 2, space.start + space.nvec - 1
    elif isinstance(space, spaces.Box) and len(space.shape) == 1:
        low, middle, high = space.low, (space.low + space.high) / 2.0, space.high
    else:
        raise TypeError(f"no keys for action space {space}; expected Discrete, or MultiDiscrete or a Box of one dimension.")
    pedals = product((("", 0), ("a", -1), ("d", 1)), (("", 0), ("s", -1), ("w", 1)) if len(middle) > 1 else (("", 0),))
    keys: dict[str, Any] = {}
    for (first, push), (second, pull) in pedals:
        action = middle.astype(space.dtype)
        for dimension, way in ((0, push), (1, pull)):
            if way:
                action[dimension] = (low if way < 0 else high)[dimension]
        keys[first + second] = action
    return keys, keys.pop("")


def play_by_hand(env: gym.Env[Any, Any], *, seed: int | None = None, zoom: float = 2.0, fps: float | None = None) -> None:
    """Open a window and play until it is closed. Raises OSError without a display, MissingDependencyError without pygame."""
    if not has_display():
        raise OSError("there is no display to open a window on; write a film instead (dreamgym play --out dream.mp4).")
    require("pygame", extra="car-racing", purpose="playing by hand")
    from gymnasium.utils.play import play  # imports pygame

    keys, noop = keyboard(env.action_space)
    play(env, keys_to_action=keys, noop=noop, seed=seed, zoom=zoom, fps=None if fps is None else max(1, round(fps)))


def film_dream(env: gym.Env[Any, Any], agent: Policy, path: str | Path, *, seed: int, steps: int, fps: float | None = None) -> Film:
    """Film an agent dreaming: `steps` steps over as many episodes as they hold, written as .mp4 or .gif.

    env renders "rgb_array". Raises ValueError without a render mode.
    """
    if env.render_mode != "rgb_array":
        raise ValueError(f"render_mode is {env.render_mode!r}; make the dream with render_mode='rgb_array'.")
    total = [0.0]
    count = write_video(path, _frames(env, agent, seed, steps, total), fps=fps or float(env.metadata.get("render_fps", 30)))
    return Film(Path(path), count - 1, total[0])


def _frames(env: gym.Env[Any, Any], agent: Policy, seed: int, steps: int, total: list[float]) -> Iterator[NDArray[np.uint8]]:
    obs, _ = env.reset(seed=seed)
    memory, begins, earned = None, np.ones(1, bool), 0.0
    yield compose([("dream", _picture(env))], f"step 0   reward {earned:.1f}")
    for step in range(1, steps + 1):
        batch: Any = {key: value[None] for key, value in obs.items()} if isinstance(obs, dict) else np.asarray(obs)[None]
        actions, memory = agent.predict(batch, state=memory, episode_start=begins)
        obs, reward, terminated, truncated, _ = env.step(np.asarray(actions)[0])
        earned += float(reward)
        total[0] += float(reward)
        begins = np.array([terminated or truncated])
        yield compose([("dream", _picture(env))], f"step {step}   reward {earned:.1f}")
        if begins[0]:
            obs, _ = env.reset()
            earned = 0.0


def _picture(env: gym.Env[Any, Any]) -> NDArray[np.uint8]:
    picture: Any = env.render()
    return picture
