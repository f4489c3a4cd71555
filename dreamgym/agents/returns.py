"""Value estimates along a dream: V_R, V_N and V_lambda of Dreamer, and the replayed form of DreamerV3."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["discount_weights", "lambda_returns", "n_step_returns", "replay_lambda_returns", "reward_sum"]


def lambda_returns(reward: Tensor, discount: Tensor, value: Tensor, *, lambda_: float) -> Tensor:
    """Mix n-step returns by lambda, computed backwards in time: G_i = r_i + d_i [(1 - lambda) v_{i+1} + lambda G_{i+1}].

    reward, discount [B,H]; discount = gamma * continue_prob. value [B,H+1] ends with the bootstrap; value[:,0] is not used.
    Returns [B,H] in units of reward. Raises ValueError if value is not one step longer than reward.
    Source: Hafner et al. 2020 (Dreamer), eq. 6, arXiv 1912.01603.
    """
    H = reward.shape[1]
    if value.shape[1] != H + 1:
        raise ValueError(f"value has {value.shape[1]} steps; expected {H + 1}, one more than reward.")
    following = value[:, -1]
    returns = []
    for h in reversed(range(H)):
        following = reward[:, h] + discount[:, h] * torch.lerp(value[:, h + 1], following, lambda_)
        returns.append(following)
    return torch.stack(returns[::-1], 1)


def n_step_returns(reward: Tensor, value: Tensor, *, discount: float, steps: int) -> Tensor:
    """V_N^k from every step: `steps` rewards, then the value there (or at the horizon if that comes first).

    reward [B,H], value [B,H+1] -> [B,H]. Source: Dreamer, eq. 5.
    """
    H = reward.shape[1]
    columns = []
    for start in range(H):
        end = min(start + steps, H)
        powers = discount ** torch.arange(end - start, dtype=reward.dtype, device=reward.device)
        columns.append((reward[:, start:end] * powers).sum(1) + discount ** (end - start) * value[:, end])
    return torch.stack(columns, 1)


def reward_sum(reward: Tensor, *, discount: float = 1.0) -> Tensor:
    """V_R: the (by default undiscounted) sum of rewards to the horizon, no value network; [B,H] -> [B,H]. Source: Dreamer, eq. 4."""
    return n_step_returns(reward, torch.zeros_like(reward[:, :1]).expand(-1, reward.shape[1] + 1), discount=discount, steps=reward.shape[1])


def discount_weights(discount: Tensor) -> Tensor:
    """How likely each imagined step is still lived: w_0 = 1, w_i = prod_{j<i} d_j; [B,H] -> [B,H]."""
    return torch.cat([torch.ones_like(discount[:, :1]), discount[:, :-1]], 1).cumprod(1)


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
