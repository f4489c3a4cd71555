"""A point mass on a line, known exactly and differentiable: agents are tested in it without any model learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from dreamgym.models.guard import Guard
from dreamgym.noise import to_normal
from dreamgym.structs import Prediction, Spec, TensorStruct

FREE = Guard(max_uncertainty=None, uncertainty_penalty=0.0, range_guard=False, reward_low=0.0, max_episode_steps=50)


@dataclass(frozen=True)
class MassState(TensorStruct):
    """Where it is and how fast it goes."""

    place: Tensor  # [B,1]
    speed: Tensor  # [B,1]


ACTIONS = {
    "box": spaces.Box(-1.0, 1.0, (1,), np.float32),
    "classes": spaces.Discrete(3),  # left, nothing, right
    "pairs": spaces.MultiDiscrete([2, 2]),  # a thruster to the left, a thruster to the right
}


class PointMass:
    """speed' = speed + 0.3 force + sigma normal, place' = place + 0.3 speed'; the reward on arrival is -(place^2 + 0.1 speed^2).

    Forces lie in [-1,1], or are -1, 0, 1. It lives on with probability sigmoid(4 (edge - |place|)).
    """

    noise_lanes = 1
    reward_low = -5.0

    def __init__(self, actions: str = "box", *, sigma: float = 0.0, edge: float = 100.0) -> None:
        super().__init__()
        self.spec = Spec("toy/PointMass", spaces.Box(-10.0, 10.0, (2,), np.float32), ACTIONS[actions], max_episode_steps=50)
        self.sigma, self.edge = sigma, edge
        self.recorded: list[bool] = []  # whether gradients were being recorded, at every step

    def initial(self, batch_size: int) -> MassState:
        return MassState(torch.zeros(batch_size, 1), torch.zeros(batch_size, 1))

    def step(self, state: MassState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> MassState:
        self.recorded.append(torch.is_grad_enabled())
        speed = state.speed + 0.3 * self._force(action) + self.sigma * to_normal(noise)
        return MassState(state.place + 0.3 * speed, speed)

    def predict(self, state: MassState) -> Prediction:
        place, speed = state.place[:, 0], state.speed[:, 0]
        return Prediction(-(place**2 + 0.1 * speed**2), torch.sigmoid(4.0 * (self.edge - place.abs())), speed.abs())

    def features(self, state: MassState) -> Tensor:
        return torch.cat([state.place, state.speed], -1)

    def in_range(self, state: MassState) -> Tensor:
        return state.place[:, 0].abs() < 1.5

    def _force(self, action: Tensor) -> Tensor:
        if self.spec.action_sizes == (2, 2):
            return action[:, 3:] - action[:, 1:2]
        return action[:, 2:] - action[:, :1] if self.spec.is_discrete else action


class LearntMass(PointMass, nn.Module):
    """The same with a parameter, as a learned model has them."""

    def __init__(self, actions: str = "box") -> None:
        super().__init__(actions)
        self.strength = nn.Parameter(torch.ones(()))

    def _force(self, action: Tensor) -> Tensor:
        return self.strength * super()._force(action)


def scattered(count: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> MassState:
    """Start states with places and speeds within [-1,1]."""
    drawn = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2.0 - 1.0
    return MassState(drawn[:, :1], drawn[:, 1:])


def awake_return(world: PointMass, act: Callable[[Tensor], Tensor], *, steps: int = 30) -> float:
    """Mean return of acting by features -> model actions from 64 start states."""
    state, total = scattered(64, seed=123), torch.zeros(64)
    for _ in range(steps):
        state = world.step(state, act(world.features(state)), torch.full((64, 1), 0.5))
        total += world.predict(state).reward
    return float(total.mean())


def steer(world: PointMass, features: Tensor) -> Tensor:
    """A good controller: proportional and differential, -0.95 with forces of any size and -1.1 with three."""
    force = (-3.0 * features.sum(-1, keepdim=True)).clamp(-1.0, 1.0)
    if not world.spec.is_discrete:
        return force
    choice = force.round().long().squeeze(-1)
    if world.spec.action_sizes == (3,):
        return nn.functional.one_hot(choice + 1, 3).float()
    return torch.stack([choice != -1, choice == -1, choice != 1, choice == 1], -1).float()
