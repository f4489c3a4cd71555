"""Distributions a policy acts with: squashed, truncated and bounded normals for Box actions, one-hot classes for the rest.

A family turns a network's raw outputs into a distribution. Every distribution answers the same questions; noise is uniform in (0,1).
What `draw` gives is the action before squashing or clipping, so that `log_prob` of it needs no inverse; `sample` finishes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from dreamgym.noise import to_normal

__all__ = [
    "ActionDistribution",
    "BoundedNormal",
    "BoundedNormalConfig",
    "FactoredOneHotPolicy",
    "OneHotFamily",
    "OneHotPolicy",
    "PolicyFamily",
    "TanhNormal",
    "TanhNormalConfig",
    "TruncatedNormal",
    "TruncatedNormalConfig",
    "tanh_log_det",
]

_LOG_2 = math.log(2.0)
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_HALF_LOG_2PI_E = _HALF_LOG_2PI + 0.5
_EDGE = 1.0 - 1e-6  # samples of the truncated normal stay within; danijar/dreamerv2 common/dists.py
_BELOW_ONE = 1.0 - 2.0**-24


class ActionDistribution(Protocol):
    """Over model actions [..., A]; log-probabilities and entropies are summed over action dimensions: [...]."""

    @property
    def mode(self) -> Tensor:
        """The action to take when not exploring."""

    def sample(self, noise: Tensor) -> Tensor:
        """An action with gradient; noise [..., A] uniform."""

    def draw(self, noise: Tensor) -> Tensor:
        """The same action as log_prob wants it [..., A]. Detach it for REINFORCE."""

    def log_prob(self, drawn: Tensor) -> Tensor:
        """Log-probability of what `draw` gave, by this distribution or another of its kind."""

    def entropy(self, noise: Tensor) -> Tensor:
        """Exact where there is a formula, else estimated from the sample that `noise` draws, with its gradient."""


class PolicyFamily(Protocol):
    """What a network's raw outputs mean."""

    def raw_size(self, action_size: int) -> int:
        """Outputs the network needs for model actions of width A."""

    def distribution(self, raw: Tensor) -> ActionDistribution:
        """raw [..., raw_size] -> distribution over [..., A]."""


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
        mean, std = _in_full(raw).chunk(2, -1)
        shift = math.log(math.expm1(init_std))
        return cls(mean_scale * torch.tanh(mean / mean_scale), functional.softplus(std + shift) + min_std)

    @property
    def mode(self) -> Tensor:
        """The squashed mean, which is the median. (V1's code takes the likeliest of 100 samples instead, which costs noise and time.)"""
        return torch.tanh(self.mean)

    def draw(self, noise: Tensor) -> Tensor:
        """Reparameterised sample before squashing; noise [..., A] uniform."""
        return self.mean + self.std * to_normal(noise)

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised sample [..., A]."""
        return torch.tanh(self.draw(noise))

    def log_prob(self, drawn: Tensor) -> Tensor:
        """Log density of tanh(drawn), summed over actions: [...]."""
        return (_normal_log_prob(drawn, self.mean, self.std) - tanh_log_det(drawn)).sum(-1)

    def entropy(self, noise: Tensor) -> Tensor:
        """One-sample estimate [...]; there is no formula. Its gradient is reparameterised."""
        return -self.log_prob(self.draw(noise))


@dataclass(frozen=True)
class TruncatedNormal:
    """Normal(mean, std) cut to [-1, 1] and renormalised; mean [..., A] within (-1, 1), std at least 0.1 or so.

    Source: danijar/dreamerv2 common/dists.py, "trunc_normal" (specs/dreamer.md B.4).
    """

    mean: Tensor
    std: Tensor

    @property
    def mode(self) -> Tensor:
        """The mean before cutting, which lies inside."""
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised sample by the inverse distribution function, then clipped to +-(1 - 1e-6) with a straight-through gradient.

        noise 0.5 gives the median.
        """
        below, inside = self._masses()
        share = (below + noise * inside).clamp(max=_BELOW_ONE)  # rounding may reach 1, where the inverse is infinite
        sample = self.mean + self.std * torch.special.ndtri(share)
        return sample + (sample.clamp(-_EDGE, _EDGE) - sample).detach()

    def draw(self, noise: Tensor) -> Tensor:
        """The sample itself."""
        return self.sample(noise)

    def log_prob(self, drawn: Tensor) -> Tensor:
        """Log density of actions [..., A] within [-1, 1]: [...]."""
        return (_normal_log_prob(drawn, self.mean, self.std) - self._masses()[1].log()).sum(-1)

    def entropy(self, noise: Tensor | None = None) -> Tensor:
        """Exact entropy [...]: ln(sqrt(2 pi e) std Z) + (a phi(a) - b phi(b)) / 2Z for standardised bounds a, b around the mass Z."""
        a, b = self._bounds()
        inside = self._masses()[1]
        tails = a * torch.exp(-0.5 * a**2) - b * torch.exp(-0.5 * b**2)
        return (_HALF_LOG_2PI_E + (self.std * inside).log() + tails * math.exp(-_HALF_LOG_2PI) / (2.0 * inside)).sum(-1)

    def _bounds(self) -> tuple[Tensor, Tensor]:
        return (-1.0 - self.mean) / self.std, (1.0 - self.mean) / self.std

    def _masses(self) -> tuple[Tensor, Tensor]:
        """Normal mass below -1, and within the bounds: at least 0.3, since the mean lies inside and the std below 2.1."""
        a, b = self._bounds()
        below = torch.special.ndtr(a)
        return below, torch.special.ndtr(b) - below


@dataclass(frozen=True)
class BoundedNormal:
    """Normal(mean, std) whose samples may leave [-1, 1]: the model and the environment see them clipped, log-probabilities do not.

    Source: DreamerV3's released code, "bounded_normal" (specs/dreamer.md C.4).
    """

    mean: Tensor
    std: Tensor

    @property
    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """a / sg(max(1, |a|)) [..., A] of a reparameterised sample a: clipped, with V3's gradient."""
        action = self.draw(noise)
        return action / action.detach().abs().clamp(min=1.0)

    def draw(self, noise: Tensor) -> Tensor:
        """Reparameterised sample before clipping; noise [..., A] uniform."""
        return self.mean + self.std * to_normal(noise)

    def log_prob(self, drawn: Tensor) -> Tensor:
        """Log density of unclipped actions [..., A]: [...]."""
        return _normal_log_prob(drawn, self.mean, self.std).sum(-1)

    def entropy(self, noise: Tensor | None = None) -> Tensor:
        """Exact entropy of the unclipped normal [...]."""
        return (self.std.log() + _HALF_LOG_2PI_E).sum(-1)


@dataclass(frozen=True)
class OneHotPolicy:
    """Categorical over one-hot actions [..., A] with straight-through gradients: forward exactly one-hot, backward as the probabilities."""

    logits: Tensor

    @classmethod
    def from_raw(cls, raw: Tensor, *, unimix: float = 0.0) -> OneHotPolicy:
        """raw [..., A]; a share `unimix` of the probability is spread evenly, so that no class dies. Source: DreamerV3."""
        raw = _in_full(raw)
        if unimix == 0.0:
            return cls(raw)
        return cls(torch.log((1.0 - unimix) * raw.softmax(-1) + unimix / raw.shape[-1]))

    @property
    def mode(self) -> Tensor:
        """One-hot of the likeliest class."""
        return functional.one_hot(self.logits.argmax(-1), self.logits.shape[-1]).to(self.logits.dtype)

    def sample(self, noise: Tensor) -> Tensor:
        """Gumbel-max draw as one-hot with the gradient of softmax(logits); noise [..., A] uniform."""
        probs = self.logits.softmax(-1)
        return self.draw(noise) + (probs - probs.detach())

    def draw(self, noise: Tensor) -> Tensor:
        """The one-hot without gradient."""
        gumbel = -torch.log(-torch.log(noise))
        return functional.one_hot((self.logits.detach() + gumbel).argmax(-1), self.logits.shape[-1]).to(self.logits.dtype)

    def log_prob(self, drawn: Tensor) -> Tensor:
        """Log probability of one-hot actions: [...]."""
        return (self.logits.log_softmax(-1) * drawn).sum(-1)

    def entropy(self, noise: Tensor | None = None) -> Tensor:
        """Exact entropy [...]."""
        log_probs = self.logits.log_softmax(-1)
        return -(log_probs.exp() * log_probs).sum(-1)


@dataclass(frozen=True)
class FactoredOneHotPolicy:
    """Independent classes side by side (MultiDiscrete): actions [..., A] are the factors' one-hots, concatenated."""

    factors: tuple[OneHotPolicy, ...]

    @property
    def mode(self) -> Tensor:
        """The likeliest class of each factor."""
        return torch.cat([factor.mode for factor in self.factors], -1)

    def sample(self, noise: Tensor) -> Tensor:
        """A draw of each factor; noise [..., A] uniform."""
        return torch.cat([factor.sample(part) for factor, part in self._split(noise)], -1)

    def draw(self, noise: Tensor) -> Tensor:
        """The one-hots without gradient."""
        return torch.cat([factor.draw(part) for factor, part in self._split(noise)], -1)

    def log_prob(self, drawn: Tensor) -> Tensor:
        """Log probability of concatenated one-hots: [...]."""
        return torch.stack([factor.log_prob(part) for factor, part in self._split(drawn)]).sum(0)

    def entropy(self, noise: Tensor | None = None) -> Tensor:
        """Exact entropy [...]: independent factors add up."""
        return torch.stack([factor.entropy() for factor in self.factors]).sum(0)

    def _split(self, joint: Tensor) -> list[tuple[OneHotPolicy, Tensor]]:
        return list(zip(self.factors, joint.split([factor.logits.shape[-1] for factor in self.factors], -1)))


@dataclass(frozen=True)
class TanhNormalConfig:
    """Squashed normal. Defaults: Dreamer V1 (danijar/dreamer models.py, ActionDecoder)."""

    mean_scale: float = 5.0
    init_std: float = 5.0
    min_std: float = 1e-4

    def __post_init__(self) -> None:
        if not self.mean_scale > 0 or not self.init_std > 0 or not self.min_std >= 0:
            raise ValueError(
                f"mean_scale is {self.mean_scale}, init_std {self.init_std}, min_std {self.min_std}; expected positive numbers."
            )

    def raw_size(self, action_size: int) -> int:
        """Mean and std."""
        return 2 * action_size

    def distribution(self, raw: Tensor) -> TanhNormal:
        """raw [..., 2A]."""
        return TanhNormal.from_raw(raw, mean_scale=self.mean_scale, init_std=self.init_std, min_std=self.min_std)


@dataclass(frozen=True)
class TruncatedNormalConfig:
    """Normal cut to [-1,1]: mean tanh(m), std 2 sigmoid(p/2) + min_std. Source: danijar/dreamerv2 (V2), "trunc_normal"."""

    min_std: float = 0.1

    def __post_init__(self) -> None:
        if not 0.01 <= self.min_std <= 1.0:
            raise ValueError(f"min_std is {self.min_std}; expected 0.01 to 1, or the mass inside the bounds cannot be computed.")

    def raw_size(self, action_size: int) -> int:
        """Mean and std."""
        return 2 * action_size

    def distribution(self, raw: Tensor) -> TruncatedNormal:
        """raw [..., 2A]; at raw 0 the std is 1 + min_std."""
        mean, std = _in_full(raw).chunk(2, -1)
        return TruncatedNormal(torch.tanh(mean), 2.0 * torch.sigmoid(0.5 * std) + self.min_std)


@dataclass(frozen=True)
class BoundedNormalConfig:
    """Normal of mean tanh(m), std (max_std - min_std) sigmoid(p + 2) + min_std. Source: DreamerV3, "bounded_normal"."""

    min_std: float = 0.1
    max_std: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.min_std < self.max_std:
            raise ValueError(f"min_std is {self.min_std}, max_std {self.max_std}; expected 0 < min_std < max_std.")

    def raw_size(self, action_size: int) -> int:
        """Mean and std."""
        return 2 * action_size

    def distribution(self, raw: Tensor) -> BoundedNormal:
        """raw [..., 2A]; at raw 0 the std is 0.892717."""
        mean, std = _in_full(raw).chunk(2, -1)
        return BoundedNormal(torch.tanh(mean), (self.max_std - self.min_std) * torch.sigmoid(std + 2.0) + self.min_std)


@dataclass(frozen=True)
class OneHotFamily:
    """One-hot classes; sizes holds the class count of each factor, (n,) for Discrete(n)."""

    sizes: tuple[int, ...]
    unimix: float = 0.0

    def raw_size(self, action_size: int) -> int:
        """One logit per class."""
        return sum(self.sizes)

    def distribution(self, raw: Tensor) -> OneHotPolicy | FactoredOneHotPolicy:
        """raw [..., sum of sizes]."""
        if len(self.sizes) == 1:
            return OneHotPolicy.from_raw(raw, unimix=self.unimix)
        return FactoredOneHotPolicy(tuple(OneHotPolicy.from_raw(part, unimix=self.unimix) for part in raw.split(list(self.sizes), -1)))


def _in_full(raw: Tensor) -> Tensor:
    """At least float32, also under autocast; float64 stays, for gradient checks."""
    return raw.to(torch.promote_types(raw.dtype, torch.float32))


def _normal_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Elementwise."""
    return -0.5 * ((x - mean) / std) ** 2 - std.log() - _HALF_LOG_2PI
