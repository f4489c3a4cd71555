"""A real world whose returns are known by hand: an episode seeded s lasts 2 + s % 5 steps and pays its action every step."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class CountingEnv(gym.Env[Any, Any]):
    """obs is [steps so far, length]; reward is the action (0 or 1)."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0.0, 100.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.length = self.count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.length = 2 + (seed if seed is not None else 98) % 5
        self.count = 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self._obs(), float(action), self.count >= self.length, False, {}

    def _obs(self) -> Any:
        return np.array([self.count, self.length], np.float32)


class AlwaysOne:
    """Pays 1 per step, so that a return is a length; counts how often it saw an episode begin."""

    def __init__(self) -> None:
        self.begun = 0

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> tuple[Any, Any]:
        assert len(episode_start) == len(observation)
        assert ((observation[:, 0] == 0) == episode_start).all()
        self.begun += int(episode_start.sum())
        return np.ones(len(observation), np.int64), state
