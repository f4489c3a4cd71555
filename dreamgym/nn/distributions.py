"""Distributions of numbers that heads and critics predict: unit normal, two-hot over symexp bins. (A policy's are in nn/policies.py.)"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BINS", "HALF_LOG_2PI", "TwoHot", "UnitNormal", "symexp", "symlog", "two_hot", "two_hot_bins"]

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)  # what a unit normal's loss is when it is right
BINS = 255  # of TwoHot


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|), elementwise. Source: Hafner et al. 2023 (DreamerV3), specs/dreamer.md C.1."""
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


def two_hot(target: Tensor, bins: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The bins around each target [...], below and above (int64), and the weight of the upper one; the lower has the rest.

    bins [N] rise; by default those of `two_hot_bins`. DreamerV3's preprint codes symlog(target) on torch.linspace(-20, 20, 255) instead,
    which decodes differently where a prediction is spread out (specs/dreamer.md C.11); never mix the two.
    """
    bins = two_hot_bins(target.device) if bins is None else bins
    target = torch.clamp(target.float(), bins[0], bins[-1]).contiguous()  # bounds as tensors: numbers would wait for a GPU
    count = torch.bucketize(target, bins, right=True)  # of bins <= target
    below, above = count - 1, count.clamp(max=len(bins) - 1)
    low, high = bins[below], bins[above]
    weight = (target - low) / torch.where(above > below, high - low, torch.ones_like(low))
    return below, above, weight


@functools.lru_cache(maxsize=16)
def two_hot_bins(device: torch.device) -> Tensor:
    """The bins [255] float32, exactly antisymmetric around bin 127, which is 0. Callers must not change them."""
    with torch.inference_mode(False):  # a tensor born in inference mode could never meet autograd again
        half = symexp(torch.linspace(-20.0, 0.0, BINS // 2 + 1, dtype=torch.float64, device="cpu")).float()
        return torch.cat([half, -half[:-1].flip(0)]).to(device)
