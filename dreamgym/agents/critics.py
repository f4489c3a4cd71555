"""Critics: value networks with the distribution they are trained under, and the slow copies that steady them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dreamgym.nn.distributions import BINS, HALF_LOG_2PI, TwoHot, UnitNormal

__all__ = ["Critic", "SlowAverage", "SlowCopy", "SlowCritic", "value_loss"]


class Critic(nn.Module):
    """Features [..., F] -> a distribution over values [...]; its `mean` is the value."""

    def __init__(self, network: nn.Module, distribution: Literal["normal", "two-hot"]) -> None:
        super().__init__()
        self.network, self.kind = network, distribution

    @staticmethod
    def outputs(distribution: Literal["normal", "two-hot"]) -> int:
        """How many outputs the network needs."""
        return BINS if distribution == "two-hot" else 1

    def read(self, raw: Tensor) -> UnitNormal | TwoHot:
        """What the network's raw outputs [..., R] say."""
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        return TwoHot(raw) if self.kind == "two-hot" else UnitNormal(raw.squeeze(-1))

    def forward(self, features: Tensor) -> UnitNormal | TwoHot:
        return self.read(self.network(features))


def value_loss(predicted: UnitNormal | TwoHot, target: Tensor) -> Tensor:
    """Cross-entropy, or half the squared error (without the likelihood's constant), elementwise: [...]. The target is detached."""
    loss = predicted.loss(target.detach())
    return loss - HALF_LOG_2PI if isinstance(predicted, UnitNormal) else loss


@dataclass(frozen=True)
class SlowCopy:
    """A copy of the critic, renewed every so many updates. Source: Dreamer V2, 100 (danijar/dreamerv2 configs.yaml)."""

    every: int = 100

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every is {self.every}; expected at least 1 update.")


@dataclass(frozen=True)
class SlowAverage:
    """A moving average of the critic's weights. regulariser pulls the critic towards the average's value, weighted against the return.

    Source: Dreamer V3, rate 0.02 and regulariser 1 (specs/dreamer.md C.6).
    """

    rate: float = 0.02
    regulariser: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.rate <= 1.0 or not self.regulariser >= 0.0:
            raise ValueError(f"rate is {self.rate}, regulariser {self.regulariser}; expected a rate in (0,1] and at least 0.")


class SlowCritic(nn.Module):
    """Follows a critic; never trained itself. `updates` counts, so that a resumed run copies when it should."""

    updates: Tensor

    def __init__(self, critic: Critic, config: SlowCopy | SlowAverage) -> None:
        super().__init__()
        self.config = config
        self.critic = copy.deepcopy(critic).requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._counted: int | None = 0  # the same number on the host, since asking a GPU for it would wait; None where it is not known
        self.register_load_state_dict_post_hook(_forget_count)

    def forward(self, features: Tensor) -> Tensor:
        """Values [...] of features [..., F]; differentiable in the features."""
        return self.critic(features).mean

    @property
    def regulariser(self) -> float:
        """Weight of the pull towards the slow value."""
        return self.config.regulariser if isinstance(self.config, SlowAverage) else 0.0

    @torch.no_grad()
    def follow(self, critic: Critic) -> None:
        """Count one update of the critic, and move."""
        self._counted = 1 + (int(self.updates) if self._counted is None else self._counted)
        self.updates += 1
        if isinstance(self.config, SlowCopy) and self._counted % self.config.every != 0:
            return
        rate = self.config.rate if isinstance(self.config, SlowAverage) else 1.0
        torch._foreach_lerp_(list(self.critic.parameters()), list(critic.parameters()), rate)


def _forget_count(slow: Any, _: Any) -> None:
    """Weights were loaded, and the count with them."""
    slow._counted = None
