"""A world in which seeing decides: every step one of two sides is safe, the observation says which, and the seed alone decides."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LIMIT = 12


def safe_sides(seed: int) -> list[int]:
    """What an episode seeded so shows, step by step."""
    return np.random.default_rng(seed).integers(0, 2, LIMIT).tolist()


class SidesEnv(gym.Env[Any, Any]):
    """obs is the safe side; the right action pays 1, the wrong one 0 and, if `deadly`, ends the episode. Truncated after 12 steps."""

    def __init__(self, deadly: bool = True) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.deadly, self.sides, self.count = deadly, [0], 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.sides, self.count = safe_sides(0 if seed is None else seed), 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        right = int(action) == self.sides[self.count]
        self.count += 1
        return self._obs(), float(right), self.deadly and not right, self.count >= LIMIT, {}

    def _obs(self) -> Any:
        return np.array([self.sides[min(self.count, LIMIT - 1)]], np.float32)


class Looks:
    """Steps to the safe side."""

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> tuple[Any, Any]:
        return np.asarray(observation)[:, 0].astype(np.int64), state
