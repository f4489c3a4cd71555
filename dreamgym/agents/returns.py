"""Value estimates along a dream: V_R, V_N and V_lambda of Dreamer, the replayed form of DreamerV3, and its scale of returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = [
    "PercentileScale",
    "ReturnScale",
    "discount_weights",
    "lambda_returns",
    "n_step_returns",
    "replay_lambda_returns",
    "reward_sum",
    "survival_weights",
]


def lambda_returns(reward: Tensor, discount: Tensor, value: Tensor, *, lambda_: float) -> Tensor:
    """Mix n-step returns by lambda, computed backwards in time: G_i = r_i + d_i [(1 - lambda) v_{i+1} + lambda G_{i+1}].

    reward, discount [B,H]; discount = gamma * continue_prob. value [B,H+1] ends with the bootstrap; value[:,0] is not used.
    Returns [B,H] in units of reward. Raises ValueError if value is not one step longer than reward.
    Source: Hafner et al. 2020 (Dreamer), eq. 6, arXiv 1912.01603.
    """
    _check_lengths(reward, value)
    rewards, discounts, values = reward.unbind(1), discount.unbind(1), value.unbind(1)
    following = values[-1]
    returns = []
    for h in reversed(range(len(rewards))):
        following = rewards[h] + discounts[h] * torch.lerp(values[h + 1], following, lambda_)
        returns.append(following)
    return torch.stack(returns[::-1], 1)


def n_step_returns(reward: Tensor, value: Tensor, *, discount: float | Tensor, steps: int) -> Tensor:
    """V_N^k from every step: `steps` rewards, then the value there (or at the horizon if that comes first).

    reward [B,H], value [B,H+1], discount a number or [B,H] -> [B,H]. Raises ValueError if value is not one step longer than reward.
    Source: Dreamer, eq. 5.
    """
    _check_lengths(reward, value)
    estimate = value
    for _ in range(min(steps, reward.shape[1])):
        estimate = torch.cat([reward + discount * estimate[:, 1:], value[:, -1:]], 1)
    return estimate[:, :-1]


def reward_sum(reward: Tensor, *, discount: float | Tensor = 1.0) -> Tensor:
    """V_R: the (by default undiscounted) sum of rewards to the horizon, no value network; [B,H] -> [B,H]. Source: Dreamer, eq. 4."""
    nothing = torch.zeros_like(reward[:, :1]).expand(-1, reward.shape[1] + 1)
    return n_step_returns(reward, nothing, discount=discount, steps=reward.shape[1])


def discount_weights(discount: Tensor) -> Tensor:
    """How likely each imagined step is still lived: w_0 = 1, w_i = prod_{j<i} d_j; [B,H] -> [B,H]. Source: V1 and V2."""
    return torch.cat([torch.ones_like(discount[:, :1]), discount[:, :-1]], 1).cumprod(1)


def survival_weights(discount: Tensor, gamma: float) -> Tensor:
    """The same counted from the start state: w_0 = c_0, w_i = c_0 prod_{0<j<=i} d_j for d = gamma c; [B,H] -> [B,H]. Source: V3.

    A start that is terminal weighs nothing.
    """
    return discount.cumprod(1) / gamma


def replay_lambda_returns(
    reward: Tensor, bootstrap: Tensor, is_last: Tensor, is_terminal: Tensor, *, discount: float, lambda_: float
) -> Tensor:
    """Lambda returns along recorded rows [B,T]: stop at a termination, bootstrap at a truncation. Returns [B,T-1].

    Row t's return starts with reward[t+1]; reward[:,0] is not used. Source: DreamerV3's replay value loss (specs/dreamer.md C.6).
    """
    live = (~is_terminal[:, 1:]).to(reward.dtype) * discount
    going_on = (~is_last[:, 1:]).to(reward.dtype) * lambda_
    following = bootstrap[:, -1]
    returns = []
    for t in reversed(range(reward.shape[1] - 1)):
        following = reward[:, t + 1] + live[:, t] * torch.lerp(bootstrap[:, t + 1], following, going_on[:, t])
        returns.append(following)
    return torch.stack(returns[::-1], 1)


@dataclass(frozen=True)
class PercentileScale:
    """How V3 measures the size of returns: a slow average of two of their percentiles (specs/dreamer.md C.6)."""

    rate: float = 0.01
    low: float = 0.05
    high: float = 0.95
    floor: float = 1.0  # returns smaller than this are not blown up

    def __post_init__(self) -> None:
        if not 0.0 < self.rate <= 1.0 or not 0.0 <= self.low < self.high <= 1.0 or not self.floor > 0.0:
            raise ValueError(
                f"rate is {self.rate}, low {self.low}, high {self.high}, floor {self.floor}; "
                "expected a rate in (0,1], shares 0 <= low < high <= 1 and a positive floor."
            )


class ReturnScale(nn.Module):
    """Averages of the low and high percentile, from 0 and without debiasing, so that the first updates are not scaled up."""

    low: Tensor
    high: Tensor
    _shares: Tensor

    def __init__(self, config: PercentileScale) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("_shares", torch.tensor([config.low, config.high]), persistent=False)  # made anew, a GPU would be waited for

    @torch.no_grad()
    def update(self, returns: Tensor) -> Tensor:
        """Take a batch of returns into account, whatever its shape; the scale [] to divide by from now on: max(floor, high - low)."""
        low, high = torch.quantile(returns.detach().float().flatten(), self._shares)
        self.low.lerp_(low, self.config.rate)
        self.high.lerp_(high, self.config.rate)
        return (self.high - self.low).clamp(min=self.config.floor)


def _check_lengths(reward: Tensor, value: Tensor) -> None:
    if value.shape[1] != reward.shape[1] + 1:
        raise ValueError(f"value has {value.shape[1]} steps; expected {reward.shape[1] + 1}, one more than reward.")
