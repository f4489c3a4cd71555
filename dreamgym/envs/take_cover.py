"""Doom TakeCover as a plain image env: ViZDoom gives a Dict, no time limit and a black picture on death."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from dreamgym.errors import MissingDependencyError, require

__all__ = ["TakeCover", "make_take_cover"]

_MAX_TICS = 2100  # one minute at 35 tics a second; Ha & Schmidhuber 2018, appendix A.4


def make_take_cover(
    env_id: str = "VizdoomTakeCover-v1",
    *,
    render_mode: str | None = None,
    max_episode_steps: int = _MAX_TICS,
    screen_resolution: str = "RES_160X120",
    **kwargs: Any,
) -> TakeCover:
    """Make the game at 160 x 120, 2.3 times faster than ViZDoom's default, ended by truncation after `max_episode_steps` tics.

    Raises MissingDependencyError without ViZDoom or with one too old to change the resolution.
    """
    require("vizdoom.gymnasium_wrapper", extra="doom", purpose=env_id)
    try:
        game = gym.make(env_id, render_mode=render_mode, max_episode_steps=max_episode_steps, screen_resolution=screen_resolution, **kwargs)
    except TypeError as error:
        if "screen_resolution" not in str(error):
            raise
        raise MissingDependencyError(f'{env_id} needs a ViZDoom that takes screen_resolution: pip install -U "dreamgym[doom]"') from error
    return TakeCover(game)


class TakeCover(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """The screen [Y,X,3] as the observation; info["obs_valid"] is False for the black picture ViZDoom shows on death.

    One step is one tic. `step_frames` runs several inside the engine, without drawing those between.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        if not isinstance(env.observation_space, spaces.Dict) or "screen" not in env.observation_space.spaces:
            raise TypeError(f"observation space {env.observation_space} has no 'screen'; expected a ViZDoom env.")
        self.observation_space = env.observation_space["screen"]
        self._limit = env.spec.max_episode_steps if env.spec is not None else None
        self._tics = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._tics = 0
        return obs["screen"], {**info, "obs_valid": True}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One tic."""
        return self.step_frames(action, 1)

    def step_frames(self, action: Any, frames: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold an action for `frames` tics, fewer if the time limit comes first; rewards are summed by the engine."""
        game: Any = self.env.unwrapped
        if self._limit is not None:
            frames = max(1, min(frames, self._limit - self._tics))
        game.frame_skip = frames
        obs, reward, terminated, truncated, info = self.env.step(int(action))  # ViZDoom refuses arrays of no dimension
        self._tics += frames
        truncated = truncated or (self._limit is not None and self._tics >= self._limit)
        info = {**info, "obs_valid": game.state is not None}
        return obs["screen"], float(reward), bool(terminated), bool(truncated and not terminated), info
