"""What a batch of dreams needs to go on elsewhere, bit by bit: for saving, forking, and sending to other processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Snapshot", "layout"]


@dataclass(frozen=True)
class Snapshot:
    """All a dream needs to go on bit by bit: taken by get_state, put back by set_state, in this process or another."""

    env_id: str  # the world that was dreamt of
    state: Any  # model state, leading [B]
    steps: Tensor  # [B] int64
    horizon: Tensor  # [B] int64
    done: Tensor  # [B] bool: ended and not begun again
    temperature: float | Tensor  # one for all, or [B] float32
    seed: Tensor  # [B] int64, with episode and step the counters of the noise
    episode: Tensor
    step: Tensor

    def spread(self, num_slots: int) -> Snapshot:
        """This snapshot of one slot in each of num_slots; of num_slots slots, itself. Raises ValueError otherwise."""
        if len(self.steps) == num_slots:
            return self
        if len(self.steps) != 1:
            raise ValueError(f"the saved state has {len(self.steps)} slots; expected 1 or {num_slots}.")
        return self._map(lambda tensor: tensor.expand(num_slots, *tensor.shape[1:]))

    def clone(self, device: torch.device) -> Snapshot:
        """A copy that shares nothing with this one."""
        return self._map(lambda tensor: tensor.to(device, copy=True).contiguous())

    def _map(self, function: Any) -> Snapshot:
        temperature = function(self.temperature) if isinstance(self.temperature, Tensor) else self.temperature
        rest = {name: function(getattr(self, name)) for name in ("steps", "horizon", "done", "seed", "episode", "step")}
        return Snapshot(env_id=self.env_id, state=self.state.map(function), temperature=temperature, **rest)


def layout(state: Any) -> dict[str, list[int]]:
    """What a model's state holds, without the batch."""
    return {name: list(tensor.shape[1:]) for name, tensor in state.items()}
