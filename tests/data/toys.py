"""Worlds and episodes whose every number is known by hand."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dreamgym.structs import Spec

VECTOR = Spec("Toy-v0", spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Box(-2.0, 2.0, (1,), np.float32), 10)
CLASSES = Spec("Toy-v0", spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Discrete(4, start=1), 10)
IMAGE = Spec("Toy-v0", spaces.Box(0, 255, (8, 8, 1), np.uint8), spaces.Discrete(2), 10)


def add(replay, steps, *, mark=0, terminated=False, **more):
    """Add an episode whose observation at step t is [mark, t, 0], action t/10 and reward 100 mark + t."""
    t = np.arange(steps + 1)
    obs = np.stack([np.full(steps + 1, mark), t, 0 * t], 1).astype(np.float32)
    replay.add_episode(obs, t[1:, None] / 10, 100.0 * mark + t[1:], terminated, not terminated, **more)


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
