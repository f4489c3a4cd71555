"""Distributions of numbers that heads and critics predict: unit normal, two-hot over symexp bins. (A policy's are in nn/policies.py.)"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dreamgym.noise import to_normal

__all__ = ["HALF_LOG_2PI", "OneHotPolicy", "TanhNormal", "TwoHot", "UnitNormal", "symexp", "symlog", "tanh_log_det"]

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)  # what a unit normal's loss is when it is right

BINS = 255  # of TwoHot

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


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|), elementwise. Source: Hafner et al. 2023 (DreamerV3), eq. 9."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp|x| - 1), elementwise: undoes symlog."""
    return torch.sign(x) * torch.expm1(x.abs())


@dataclass(frozen=True)
class UnitNormal:
    """Normal(mean, 1) over numbers [...]: squared error in the dress of a likelihood."""

    mean: Tensor

    def log_prob(self, target: Tensor) -> Tensor:
        """Log density of target [...], elementwise."""
        return -self.loss(target)

    def loss(self, target: Tensor) -> Tensor:
        """Half the squared error plus 0.5 ln 2pi, elementwise, in float32."""
        return 0.5 * (self.mean.float() - target.float()).square() + HALF_LOG_2PI


@dataclass(frozen=True)
class TwoHot:
    """Categorical over 255 bins spaced by symexp, for numbers of any size: logits [..., 255] -> numbers [...].

    A target puts its weight on its two neighbouring bins, linearly in the raw space, so that the mean of the target is the target.
    Uniform logits have a mean of exactly 0. Source: DreamerV3's released code (specs/dreamer.md C.2); the preprint's bins differ (C.11).
    """

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        """Expected number [...] in float32.

        Mirrored bins are paired before anything is summed: an ordinary sum of uniform probabilities is off by 1 or more.
        """
        half = BINS // 2
        probs = self.logits.float().softmax(-1)
        surplus = probs[..., half + 1 :] - probs[..., :half].flip(-1)
        return (surplus * two_hot_bins(probs.device)[half + 1 :]).sum(-1)

    def log_prob(self, target: Tensor) -> Tensor:
        """Minus the cross-entropy of the two-hot target [...]."""
        return -self.loss(target)

    def loss(self, target: Tensor) -> Tensor:
        """Cross-entropy [...] of the two-hot code of target [...]; targets beyond +-4.85e8 count as that."""
        logits = self.logits.float()
        below, above, weight = two_hot(target)
        picked = logits.gather(-1, torch.stack([below, above], -1))
        return logits.logsumexp(-1) - torch.lerp(picked[..., 0], picked[..., 1], weight)


def two_hot(target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The bins around each target [...], below and above (int64), and the weight of the upper one; the lower has the rest."""
    bins = two_hot_bins(target.device)
    target = torch.clamp(target.float(), bins[0], bins[-1]).contiguous()  # bounds as tensors: numbers would wait for a GPU
    count = torch.bucketize(target, bins, right=True)  # of bins <= target
    below, above = count - 1, count.clamp(max=BINS - 1)
    low, high = bins[below], bins[above]
    weight = (target - low) / torch.where(above > below, high - low, torch.ones_like(low))
    return below, above, weight


@functools.lru_cache(maxsize=16)
def two_hot_bins(device: torch.device) -> Tensor:
    """The bins [255] float32, exactly antisymmetric around bin 127, which is 0. Callers must not change them."""
    with torch.inference_mode(False):  # a tensor born in inference mode could never meet autograd again
        half = symexp(torch.linspace(-20.0, 0.0, BINS // 2 + 1, dtype=torch.float64, device="cpu")).float()
        return torch.cat([half, -half[:-1].flip(0)]).to(device)
