"""Worlds and episodes whose every number is known by hand."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dreamgym.structs import Spec

VECTOR = Spec("Toy-v0", spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Box(-2.0, 2.0, (1,), np.float32), 10)
CLASSES = Spec("Toy-v0", spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Discrete(4, start=1), 10)
PARTS = spaces.Dict(
    camera=spaces.Box(0, 255, (8, 8, 3), np.uint8), speed=spaces.Box(-np.inf, np.inf, (3,), np.float32), gear=spaces.Discrete(3, start=-1)
)
CHOICES = Spec("Toy-v0", PARTS, spaces.MultiDiscrete([2, 3], start=[0, 5]), 10)
IMAGE = Spec("Toy-v0", spaces.Box(0, 255, (8, 8, 1), np.uint8), spaces.Discrete(2), 10)


def add(replay, steps, *, mark=0, terminated=False, **more):
    """Add an episode whose observation at step t is [mark, t, 0], action t/10 and reward 100 mark + t."""
    t = np.arange(steps + 1)
    obs = np.stack([np.full(steps + 1, mark), t, 0 * t], 1).astype(np.float32)
    replay.add_episode(obs, t[1:, None] / 10, 100.0 * mark + t[1:], terminated, not terminated, **more)


def parts(steps, *, mark=0):
    """Observations of steps + 1 rows: a camera of brightness mark, the speed [mark, t, 0] and gears that go up."""
    t = np.arange(steps + 1)
    speed = np.stack([np.full(steps + 1, mark), t, 0 * t], 1).astype(np.float32)
    return {"camera": np.full((steps + 1, 8, 8, 3), mark, np.uint8), "speed": speed, "gear": t % 3 - 1}


def add_parts(replay, steps, *, mark=0, **more):
    """Add an episode of CHOICES with actions (t % 2, 5 + t % 3)."""
    t = np.arange(steps)
    replay.add_episode(parts(steps, mark=mark), np.stack([t % 2, 5 + t % 3], 1), t.astype(np.float32), False, True, **more)


class CountingParts(gym.Env):
    """Observes the parts of CHOICES; the gear and the speed tell the last action."""

    observation_space, action_space = CHOICES.observation_space, CHOICES.action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(np.array([0, 5])), {}

    def step(self, action):
        self.t += 1
        return self._obs(action), float(action[1]), self.t >= 6, False, {}

    def _obs(self, action):
        speed = np.array([self.t, *action], np.float32)
        return {"camera": np.full((8, 8, 3), self.t, np.uint8), "speed": speed, "gear": np.int64(action[1] - 6)}


class Counting(gym.Env):
    """Observes [seed's draw, t, last action]; pays the action; terminates at step `end`."""

    observation_space = VECTOR.observation_space
    action_space = VECTOR.action_space

    def __init__(self, end=6):
        self.end = end

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.draw = 0, self.np_random.random()
        return np.array([self.draw, 0, 0], np.float32), {}

    def step(self, action):
        self.t += 1
        obs = np.array([self.draw, self.t, action[0]], np.float32)
        info = {"obs_valid": self.t < self.end, "raw_reward": 10 * float(action[0])}
        return obs, float(action[0]), self.t >= self.end, False, info
