"""Ends dreams that know too little: an agent trained in a dream seeks out whatever the model gets wrong in its favour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dreamgym.structs import Prediction

__all__ = ["Guard", "GuardSettings", "unguarded"]

_DISCOUNT = 0.99  # horizon over which the pessimistic value is summed; close to what most agents use
_UNCERTAINTY_CAP = 3.0  # in calibrated units; one wild estimate must not dominate a return. prototypes/carracing.md


class GuardSettings(Protocol):
    """What says how a dream is guarded: a model's DreamDefaults, a planner's config."""

    @property
    def max_uncertainty(self) -> float | None:
        """Bound on uncertainty, in calibrated units; None for none."""

    @property
    def uncertainty_penalty(self) -> float:
        """Charge per unit of uncertainty, in units of reward."""

    @property
    def range_guard(self) -> bool:
        """Whether leaving the data's range ends a dream."""


@dataclass(frozen=True)
class Guard:
    """Halts where uncertainty exceeds max_uncertainty or the state leaves the data's range, and charges for uncertainty.

    A halt pays the pessimistic value: the worst reward of every step that the real time limit would still have allowed,
    discounted by 0.99. The worst is the lowest reward in the data less the largest uncertainty charge, and never more than 0,
    so that halting is never better than living. A predicted end goes before the guard: goals lie at the edge of the data.
    """

    max_uncertainty: float | None
    uncertainty_penalty: float
    range_guard: bool
    reward_low: float  # read from the model, and meant, only where it halts
    max_episode_steps: int

    @classmethod
    def by(cls, model: Any, settings: GuardSettings) -> Guard:
        """The guard of a model as settings want it, at the model's present lowest reward. Raises as `of` does."""
        return cls.of(
            model,
            max_uncertainty=settings.max_uncertainty,
            uncertainty_penalty=settings.uncertainty_penalty,
            range_guard=settings.range_guard,
        )

    @classmethod
    def of(cls, model: Any, *, max_uncertainty: float | None, uncertainty_penalty: float, range_guard: bool) -> Guard:
        """The guard of a model. Raises ValueError where the model lacks what the guard needs."""
        if max_uncertainty is not None and not max_uncertainty > 0:
            raise ValueError(f"max_uncertainty is {max_uncertainty}; expected a positive bound, or math.inf for none.")
        if not uncertainty_penalty >= 0:
            raise ValueError(f"uncertainty_penalty is {uncertainty_penalty}; expected at least 0.")
        limited = max_uncertainty is not None and max_uncertainty != float("inf")
        if range_guard and not hasattr(model, "in_range"):
            raise ValueError("range_guard needs model.in_range(state), which this model lacks; pass range_guard=False.")
        if (limited or range_guard) and not hasattr(model, "reward_low"):
            raise ValueError("max_uncertainty and range_guard need model.reward_low, the lowest reward to expect; this model lacks it.")
        return cls(
            max_uncertainty=max_uncertainty if limited else None,
            uncertainty_penalty=float(uncertainty_penalty),
            range_guard=bool(range_guard),
            reward_low=float(model.reward_low) if limited or range_guard else 0.0,  # a GPU would be waited for
            max_episode_steps=int(model.spec.max_episode_steps),
        )

    @property
    def halts(self) -> bool:
        """Whether it may end a dream."""
        return self.max_uncertainty is not None or self.range_guard

    @property
    def idle(self) -> bool:
        """Whether it neither halts nor charges: nobody asks then for the uncertainty."""
        return not self.halts and self.uncertainty_penalty == 0.0

    def judge(self, model: Any, state: Any, prediction: Prediction, ended: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Reward [B] after charges, and halted [B] bool. ended [B]: predicted ends; steps [B] int64 counts this step too."""
        reward = prediction.reward
        if self.uncertainty_penalty > 0:
            reward = reward - self.uncertainty_penalty * prediction.uncertainty.clamp(0.0, _UNCERTAINTY_CAP)
        if not self.halts:
            return reward, torch.zeros_like(ended)
        halted = self._beyond(model, state, prediction) & ~ended
        return torch.where(halted, self.pessimistic_value(steps), reward), halted

    def pessimistic_value(self, steps: Tensor) -> Tensor:
        """What living at its worst would pay from step `steps` [B] on, that step included: [B], in units of reward."""
        worst = min(0.0, self.reward_low - _UNCERTAINTY_CAP * self.uncertainty_penalty)
        remaining = (self.max_episode_steps + 1 - steps).clamp(min=1).float()
        return worst * (1.0 - torch.pow(_DISCOUNT, remaining)) / (1.0 - _DISCOUNT)

    def _beyond(self, model: Any, state: Any, prediction: Prediction) -> Tensor:
        if self.max_uncertainty is None:
            return ~model.in_range(state)
        unsure = prediction.uncertainty > self.max_uncertainty
        return unsure | ~model.in_range(state) if self.range_guard else unsure


def unguarded(model: Any, state: Any) -> tuple[Tensor, Tensor]:
    """Reward and continue probability [B] of states arrived at; a model with an `outcome` method is spared its uncertainty."""
    if hasattr(model, "outcome"):
        reward, continue_prob = model.outcome(state)
        return reward, continue_prob
    prediction = model.predict(state)
    return prediction.reward, prediction.continue_prob
