"""One optimiser's step down one loss, with the clipping, decay and warm-up that its config wants."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dreamgym.nn.optimisers import LaProp, adaptive_clip_
from dreamgym.training.online_config import OptimiserConfig

__all__ = ["GradientStep"]


class GradientStep:
    """One optimiser over some parameters, and what its config wants done before each step."""

    def __init__(self, parameters: Iterable[nn.Parameter], config: OptimiserConfig) -> None:
        self.parameters, self.config = list(parameters), config
        self.steps = 0
        self.optimiser: torch.optim.Optimizer
        if config.kind == "adam":
            self.optimiser = torch.optim.Adam(self.parameters, config.learning_rate, eps=config.eps, fused=True)
        else:
            self.optimiser = LaProp(self.parameters, config.learning_rate, eps=config.eps)

    def minimise(self, loss: Tensor, *, rate: float = 1.0) -> Tensor:
        """Step down the loss, at `rate` times the learning rate; returns the global gradient norm before clipping.

        Other parameters that the loss reaches keep their gradients.
        """
        config = self.config
        for parameter, gradient in zip(self.parameters, torch.autograd.grad(loss, self.parameters, allow_unused=True)):
            parameter.grad = gradient
        norm = self._clip()
        self.steps += 1
        warm = min(1.0, self.steps / config.warmup) if config.warmup else 1.0
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * warm * rate
        if config.weight_decay:
            with torch.no_grad():  # dreamerv2/common/nets.py shrinks before the step and not by the rate
                torch._foreach_mul_(tuple(self.parameters), 1.0 - config.weight_decay)
        self.optimiser.step()
        return norm

    def _clip(self) -> Tensor:
        """Clip as the config says; returns the global norm before."""
        clip = math.inf if self.config.clip is None else self.config.clip
        if self.config.adaptive_clip is None:
            return nn.utils.clip_grad_norm_(self.parameters, clip)
        norm = adaptive_clip_(self.parameters, self.config.adaptive_clip)
        if clip < math.inf:
            nn.utils.clip_grad_norm_(self.parameters, clip)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.steps = saved["steps"]
        self.optimiser.load_state_dict(saved["optimiser"])
