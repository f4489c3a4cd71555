"""Distributions a policy acts with: tanh-squashed normal for Box actions, straight-through one-hot for classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dreamgym.noise import to_normal

__all__ = ["OneHotPolicy", "TanhNormal", "tanh_log_det"]

_LOG_2 = math.log(2.0)
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def tanh_log_det(pre_tanh: Tensor) -> Tensor:
    """log |d tanh(u) / du|, stable for large |u|; elementwise."""
    return 2.0 * (_LOG_2 - pre_tanh - functional.softplus(-2.0 * pre_tanh))


@dataclass(frozen=True)
class TanhNormal:
    """tanh(Normal(mean, std)) over actions [..., A] in (-1, 1).

    from_raw bounds the mean by mean_scale * tanh(m / mean_scale) and floors the std. Source: danijar/dreamer (V1), "tanh_normal".
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def from_raw(cls, raw: Tensor, *, mean_scale: float = 5.0, init_std: float = 5.0, min_std: float = 1e-4) -> TanhNormal:
        """raw [..., 2A] -> distribution; at raw 0 the std is init_std + min_std."""
        mean, std = raw.float().chunk(2, -1)
        shift = math.log(math.expm1(init_std))
        return cls(mean_scale * torch.tanh(mean / mean_scale), functional.softplus(std + shift) + min_std)

    @property
    def mode(self) -> Tensor:
        """The squashed mean (the median of each action)."""
        return torch.tanh(self.mean)

    def pre_tanh(self, noise: Tensor) -> Tensor:
        """Reparameterised sample before squashing; noise [..., A] uniform."""
        return self.mean + self.std * to_normal(noise)

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised sample [..., A]."""
        return torch.tanh(self.pre_tanh(noise))

    def log_prob(self, pre_tanh: Tensor) -> Tensor:
        """Log density of tanh(pre_tanh), summed over actions: [...]."""
        normal = -0.5 * ((pre_tanh - self.mean) / self.std) ** 2 - self.std.log() - _HALF_LOG_2PI
        return (normal - tanh_log_det(pre_tanh)).sum(-1)

    def entropy(self, pre_tanh: Tensor) -> Tensor:
        """One-sample estimate of the entropy [...]; its gradient is reparameterised."""
        return -self.log_prob(pre_tanh)


@dataclass(frozen=True)
class OneHotPolicy:
    """Categorical over one-hot actions [..., A] with straight-through gradients: forward exactly one-hot, backward as the probabilities."""

    logits: Tensor

    @property
    def mode(self) -> Tensor:
        """One-hot of the likeliest class."""
        return functional.one_hot(self.logits.argmax(-1), self.logits.shape[-1]).float()

    def sample(self, noise: Tensor) -> Tensor:
        """Gumbel-max draw as one-hot with the gradient of softmax(logits); noise [..., A] uniform."""
        gumbel = -torch.log(-torch.log(noise))
        drawn = functional.one_hot((self.logits + gumbel).argmax(-1), self.logits.shape[-1]).float()
        probs = self.logits.softmax(-1)
        return drawn + (probs - probs.detach())

    def log_prob(self, action: Tensor) -> Tensor:
        """Log probability of one-hot actions: [...]."""
        return (self.logits.log_softmax(-1) * action).sum(-1)

    def entropy(self) -> Tensor:
        """Exact entropy [...]."""
        log_probs = self.logits.log_softmax(-1)
        return -(log_probs.exp() * log_probs).sum(-1)
