"""A user's own world: a camera whose size no convolution likes, what the body feels and a class, steered by two choices at once."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

ENV_ID = "DreamgymTests/Garden-v0"
STEPS = 25  # an episode's time limit


class Garden(gym.Env[Any, Any]):
    """Walk (left, stay, right) and carry or drop (0, 1) water to the flower at the right edge; the episode ends when it is watered.

    Pixels are 48 x 40, the place and the water left are a vector, the side of the garden is a class that counts from 1.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - as gymnasium declares it
    observation_space = spaces.Dict(
        camera=spaces.Box(0, 255, (48, 40, 3), np.uint8),
        body=spaces.Box(-np.inf, np.inf, (2,), np.float32),
        side=spaces.Discrete(2, start=1),
    )
    action_space = spaces.MultiDiscrete([3, 2])

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._at, self._water = float(self.np_random.uniform(-1.0, 0.0)), 1.0
        return self._look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._at = float(np.clip(self._at + 0.25 * (int(action[0]) - 1), -1.0, 1.0))
        poured = self._water * (0.25 if int(action[1]) else 0.0)
        self._water -= poured
        watered = poured > 0.01 and self._at > 0.9
        return self._look(), 10.0 * poured if watered else -0.1, watered, False, {}

    def render(self) -> Any:
        return self._paint() if self.render_mode else None

    def _look(self) -> dict[str, Any]:
        return {
            "camera": self._paint(),
            "body": np.array([self._at, self._water], np.float32),
            "side": np.int64(2 if self._at > 0.0 else 1),
        }

    def _paint(self) -> Any:
        picture = np.full((48, 40, 3), (90, 160, 60), np.uint8)
        picture[20:30, 36:] = (220, 60, 90)
        left = int(18 + 16 * self._at)
        picture[18:32, left : left + 4] = (40, 40, int(255 * self._water))
        return picture


if ENV_ID not in gym.registry:
    gym.register(ENV_ID, entry_point="tests.training.dict_world:Garden", max_episode_steps=STEPS)
