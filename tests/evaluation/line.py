"""A world known by hand: a point on a line, moved by a tenth left, not at all, or right; and models of it, right and wrong.

The reward is the position arrived at. An episode ends at 0.5 (terminated) or after 20 steps (truncated).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from dreamgym.noise import to_normal
from dreamgym.structs import DreamDefaults, Prediction, SequenceBatch, Spec, StartBank, TensorStruct

ENV_ID = "DreamgymLine-v0"
OBS = spaces.Box(-3.0, 3.0, (1,), np.float32)
ACTION = spaces.Discrete(3)
GOAL, LIMIT = 0.45, 20  # 0.45 rather than 0.5: five times 0.1 in float32 is not exactly 0.5


class LineEnv(gym.Env[Any, Any]):
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space, self.action_space, self.render_mode = OBS, ACTION, render_mode
        self.position = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = 0.0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.position += 0.1 * (int(action) - 1)
        return self._obs(), self.position, self.position > GOAL, False, {}

    def render(self) -> Any:
        picture = np.zeros((40, 60, 3), np.uint8)
        picture[:, int(np.clip(30 + 10 * self.position, 0, 59))] = 255
        return picture

    def _obs(self) -> Any:
        return np.array([self.position], np.float32)


def register() -> None:
    if ENV_ID not in gym.registry:
        gym.register(ENV_ID, LineEnv, max_episode_steps=LIMIT)


@dataclass(frozen=True)
class LineState(TensorStruct):
    obs: Tensor  # [B,1]


class LineModel:
    """The line as a dream. bias is added to every dreamt step; spread is the deviation of its noise."""

    noise_lanes = 1
    episode_lanes = 0
    reward_low = -3.0
    feature_low = OBS.low
    feature_high = OBS.high
    defaults = DreamDefaults(uncertainty_penalty=5.0, max_uncertainty=0.5, horizon=3)  # must not reach a judgement

    def __init__(self, bias: float = 0.0, spread: float = 0.0, always_ends: bool = False) -> None:
        self.spec = Spec(ENV_ID, OBS, ACTION, LIMIT, fps=10.0)
        self.bias, self.spread, self.always_ends = bias, spread, always_ends
        self.initial_states = StartBank(LineState(torch.zeros(2, 1)), torch.ones(2, dtype=torch.bool))

    def initial(self, batch_size: int) -> LineState:
        return LineState(torch.zeros(batch_size, 1))

    def step(self, state: LineState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> LineState:
        move = 0.1 * (action[:, 2:] - action[:, :1])
        return LineState(state.obs + move + self.bias + self.spread * temperature * to_normal(noise))

    def predict(self, state: LineState) -> Prediction:
        position = state.obs[:, 0]
        ends = (position > GOAL) | self.always_ends
        return Prediction(position, torch.where(ends, 0.1, 0.9), torch.ones_like(position))

    def features(self, state: LineState) -> Tensor:
        return state.obs

    def decode(self, state: LineState) -> Tensor:
        return state.obs

    def observe(self, state: LineState, prev_action: Tensor, obs: Tensor, is_first: Tensor, noise: Tensor) -> LineState:
        return LineState(obs)


def lived(actions: list[list[int]], restart_at: int | None = None) -> SequenceBatch:
    """What the real line gives for env actions [B][T-1]; every sequence begins again at row `restart_at`."""
    env = LineEnv()
    rows: dict[str, list[list[Any]]] = {key: [] for key in ("obs", "reward", "first", "terminal", "action")}
    for sequence in actions:
        for values in rows.values():
            values.append([])
        for row, action in enumerate([None, *sequence]):
            if action is None or row == restart_at:
                (obs, _), reward, terminal, moved = env.reset(), 0.0, False, [0.0] * 3
            else:
                obs, reward, terminal, _, _ = env.step(action)
                moved = [float(index == action) for index in range(3)]
            for key, value in zip(rows, (obs, reward, moved == [0.0] * 3, terminal, moved)):
                rows[key][-1].append(value)
    first, terminal_rows = torch.tensor(rows["first"]), torch.tensor(rows["terminal"])
    return SequenceBatch(
        obs=torch.tensor(np.array(rows["obs"])),
        prev_action=torch.tensor(rows["action"]),
        reward=torch.tensor(rows["reward"], dtype=torch.float32),
        is_first=first,
        is_last=terminal_rows,
        is_terminal=terminal_rows,
        valid=torch.ones_like(first),
        index=torch.arange(first.numel()).view(first.shape),
    )
