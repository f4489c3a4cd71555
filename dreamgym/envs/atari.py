"""Atari by the protocol that Dreamer's published scores were measured with: sticky actions, no-ops, pooled frames."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from dreamgym.errors import require

__all__ = ["Atari", "make_atari"]

_MAX_FRAMES = 108_000  # 30 minutes at 60 frames a second
_FPS = 60


def make_atari(
    env_id: str,
    *,
    grey: bool = True,
    render_mode: str | None = None,
    max_episode_steps: int = _MAX_FRAMES,
    no_ops: int = 30,
    **kwargs: Any,
) -> Atari:
    """Make an `ALE/` game where one step is one frame, and the screen [Y,X] grey or [Y,X,3] the observation.

    The emulator repeats the previous frame's action with probability 0.25 (repeat_action_probability); actions are those the game
    uses (full_action_space). Only the end of the game is an end, not the loss of a life. max_episode_steps counts frames, no-ops
    included. Action repeat, greying and resizing are Preprocess's.
    Raises MissingDependencyError without ale_py; ValueError for frameskip and obs_type, which Preprocess decides.
    """
    ale = require("ale_py", extra="atari", purpose=env_id)
    gym.register_envs(ale)
    for word, field in (("frameskip", "action_repeat"), ("obs_type", "grey")):
        if word in kwargs:
            raise ValueError(f"{word} is not make_env's to choose for {env_id}; pass preprocess=Preprocess({field}=...) instead.")
    game = gym.make(
        env_id,
        frameskip=1,
        obs_type="grayscale" if grey else "rgb",
        render_mode=render_mode,
        max_episode_steps=max_episode_steps,
        **{"repeat_action_probability": 0.25, "full_action_space": False, "max_num_frames_per_episode": 0, **kwargs},
    )
    return Atari(game, no_ops=no_ops)


class Atari(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Starts episodes with 1 to `no_ops` idle frames, and shows the brighter of the last two frames: sprites flicker on the 2600.

    With action repeat 4, equal to gymnasium's AtariPreprocessing, except when a game ends within the repeat: that one shows older frames.
    Source: Machado et al. 2018, arXiv 1709.06009; danijar/dreamerv2 common/envs.py.
    """

    def __init__(self, env: gym.Env[Any, Any], no_ops: int = 30) -> None:
        RecordConstructorArgs.__init__(self, no_ops=no_ops)
        gym.Wrapper.__init__(self, env)
        if no_ops < 0:
            raise ValueError(f"no_ops is {no_ops}; expected 0 or more frames.")
        self._no_ops = no_ops
        self._previous: Any = None
        self.metadata = {**env.metadata, "render_fps": _FPS}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        idle = int(self.env.unwrapped.np_random.integers(1, self._no_ops + 1)) if self._no_ops else 0
        for _ in range(idle):
            obs, _, terminated, truncated, latest = self.env.step(0)
            info.update(latest)
            if terminated or truncated:
                obs, info = self.env.reset(options=options)
        self._previous = obs
        return obs.copy(), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One frame."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        pooled = np.maximum(self._previous, obs)
        self._previous = obs
        return pooled, float(reward), bool(terminated), bool(truncated), info
