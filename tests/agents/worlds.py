"""A point mass on a line, known exactly and differentiable: agents are tested in it without any model learning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from dreamgym.models.guard import Guard
from dreamgym.noise import to_normal
from dreamgym.structs import Prediction, Spec, TensorStruct

FREE = Guard(max_uncertainty=None, uncertainty_penalty=0.0, range_guard=False, reward_low=0.0, max_episode_steps=50)


@dataclass(frozen=True)
class MassState(TensorStruct):
    """Where it is and how fast it goes."""

    place: Tensor  # [B,1]
    speed: Tensor  # [B,1]


class PointMass:
    """speed' = speed + 0.3 force + sigma normal, place' = place + 0.3 speed'; the reward on arrival is -(place^2 + 0.1 speed^2).

    Forces lie in [-1,1] (a Box) or are -1, 0, 1 (classes). It lives on with probability sigmoid(4 (edge - |place|)).
    """

    noise_lanes = 1
    reward_low = -5.0
    device = torch.device("cpu")

    def __init__(self, *, discrete: bool = False, sigma: float = 0.0, edge: float = 100.0) -> None:
        action_space = spaces.Discrete(3) if discrete else spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.spec = Spec("toy/PointMass", spaces.Box(-10.0, 10.0, (2,), np.float32), action_space, max_episode_steps=50)
        self.sigma, self.edge = sigma, edge

    def initial(self, batch_size: int) -> MassState:
        return MassState(torch.zeros(batch_size, 1), torch.zeros(batch_size, 1))

    def step(self, state: MassState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> MassState:
        force = action[:, 2:] - action[:, :1] if self.spec.is_discrete else action
        speed = state.speed + 0.3 * force + self.sigma * to_normal(noise)
        return MassState(state.place + 0.3 * speed, speed)

    def predict(self, state: MassState) -> Prediction:
        place, speed = state.place[:, 0], state.speed[:, 0]
        return Prediction(-(place**2 + 0.1 * speed**2), torch.sigmoid(4.0 * (self.edge - place.abs())), speed.abs())

    def features(self, state: MassState) -> Tensor:
        return torch.cat([state.place, state.speed], -1)

    def in_range(self, state: MassState) -> Tensor:
        return state.place[:, 0].abs() < 1.5


def scattered(count: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> MassState:
    """Start states with places and speeds within [-1,1]."""
    drawn = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2.0 - 1.0
    return MassState(drawn[:, :1], drawn[:, 1:])
