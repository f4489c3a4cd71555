"""A finished model that computes its matrix products in bfloat16: twice to four times as many dreams on CPUs that can."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Bfloat16Dreamer", "in_bfloat16"]


def in_bfloat16(model: nn.Module) -> Any:
    """A copy whose matrices are in bfloat16, so that autocast need not cast them at each use; vectors stay in float32."""
    bank = getattr(model, "initial_states", None)  # large, and not read here
    half = copy.deepcopy(model, {id(bank): None} if bank is not None else {})
    for parameter in half.parameters():
        if parameter.dim() >= 2:
            parameter.data = parameter.data.to(torch.bfloat16)
    return half.requires_grad_(False)


class Bfloat16Dreamer:
    """What a dream asks of a world model, computed so; states and answers are float32, as the agents that read them.

    The weights are read once, here. No gradient flows to them.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._half = in_bfloat16(model)

    @property
    def noise_lanes(self) -> int:
        """Uniforms one step consumes."""
        return int(self.model.noise_lanes)

    def step(self, state: Any, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> Any:
        """As the model's."""
        return self._asked("step", state, action, noise, temperature)

    def features(self, state: Any) -> Tensor:
        """As the model's."""
        features: Tensor = self._asked("features", state)
        return features.float()

    def predict(self, state: Any) -> Any:
        """As the model's."""
        return self._asked("predict", state)

    def outcome(self, state: Any) -> tuple[Tensor, Tensor]:
        """As the model's."""
        reward, continue_prob = self._asked("outcome", state)
        return reward.float(), continue_prob.float()

    def in_range(self, state: Any) -> Tensor:
        """As the model's."""
        inside: Tensor = self._asked("in_range", state)
        return inside

    def _asked(self, name: str, *arguments: Any) -> Any:
        with torch.autocast(self.model.device.type, torch.bfloat16):
            return getattr(self._half, name)(*arguments)
