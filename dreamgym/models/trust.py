"""How far a dream may be believed: the price of uncertainty, and the halt where the model knows that it does not know."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamgym.structs import Prediction

__all__ = ["Trust"]

_PESSIMISM_DISCOUNT = 0.99  # a halt pays as if the worst reward went on for about a hundred steps


@dataclass(frozen=True)
class Trust:
    """Trust controls of a dream; see DreamDefaults for their meaning.

    A predicted end goes before a halt: where the model says "goal reached" at the edge of its data, that is an end and not a halt.
    Halting must never be better than living, so a halt pays the worst reward of the data for the steps that remain.
    """

    max_uncertainty: float | None = None
    uncertainty_penalty: float = 0.0
    range_guard: bool = False
    reward_low: float = 0.0

    def halts(self, prediction: Prediction, in_range: Tensor | None) -> Tensor:
        """Where the dream has lost its ground: bool [B]. in_range is the model's, or None where the guard is off."""
        halted = torch.zeros_like(prediction.reward, dtype=torch.bool)
        if self.max_uncertainty is not None:
            halted = halted | (prediction.uncertainty > self.max_uncertainty)
        if self.range_guard and in_range is not None:
            halted = halted | ~in_range
        return halted

    def reward(self, prediction: Prediction) -> Tensor:
        """The reward less the price of uncertainty, which is capped at 3 calibrated units: [B]."""
        if self.uncertainty_penalty == 0.0:
            return prediction.reward
        return prediction.reward - self.uncertainty_penalty * prediction.uncertainty.clamp(max=3.0)

    def halt_value(self, remaining: Tensor) -> Tensor:
        """What a halt pays with `remaining` steps [B] to live: min(0, worst reward) each, discounted; 0 where rewards are not negative."""
        worst = min(0.0, self.reward_low)
        return worst * (1.0 - _PESSIMISM_DISCOUNT ** remaining.float()) / (1.0 - _PESSIMISM_DISCOUNT)
