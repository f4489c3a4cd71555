"""Stochastic latents as objects: how raw network outputs become a distribution, a sample and a KL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from dreamgym.noise import to_normal
from dreamgym.structs import TensorStruct

__all__ = ["CategoricalLatent", "CategoricalStats", "GaussianLatent", "GaussianStats", "Latent", "LatentStats", "temperature_root"]


@dataclass(frozen=True)
class GaussianStats(TensorStruct):
    """Parameters of a diagonal normal; they travel beside the state, never inside it."""

    mean: Tensor  # [...,S]
    std: Tensor  # [...,S]


@dataclass(frozen=True)
class GaussianLatent:
    """Diagonal normal with a floor on its std. Defaults: PlaNet and Dreamer V1 (danijar/dreamer models.py).

    std "softplus" is softplus(raw) + min_std, "sigmoid2" is 2 sigmoid(raw / 2) + min_std, DreamerV2's, which cannot explode.
    """

    size: int = 30
    min_std: float = 0.1  # keeps the KL finite
    std: Literal["softplus", "sigmoid2"] = "softplus"

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 16384:
            raise ValueError(f"size is {self.size}; expected 1 to 16384.")
        if not 0.0 < self.min_std <= 10.0:
            raise ValueError(f"min_std is {self.min_std}; expected in (0, 10].")
        if self.std not in ("softplus", "sigmoid2"):
            raise ValueError(f"std is {self.std!r}; expected softplus or sigmoid2.")

    @property
    def raw_size(self) -> int:
        """Width of the network output that parametrises one latent."""
        return 2 * self.size

    @property
    def flat_size(self) -> int:
        """Width of a sample as the networks see it."""
        return self.size

    @property
    def noise_lanes(self) -> int:
        """Uniforms needed for one sample."""
        return self.size

    @property
    def bound(self) -> float:
        """Features are clipped to this; far outside what a KL to the prior allows."""
        return 10.0

    def stats(self, raw: Tensor) -> GaussianStats:
        """raw [..., 2S] -> mean and std, in float32 even under autocast."""
        mean, std = raw.float().chunk(2, -1)
        std = functional.softplus(std) if self.std == "softplus" else 2.0 * torch.sigmoid(std / 2.0)
        return GaussianStats(mean, std + self.min_std)

    def sample(self, stats: GaussianStats, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Reparameterised sample [..., S]; noise [..., S] uniform, 0.5 gives the mean; temperature multiplies the variance."""
        std = stats.std if isinstance(temperature, float) and temperature == 1.0 else stats.std * temperature_root(temperature)
        return torch.addcmul(stats.mean, std, to_normal(noise))

    def mean(self, stats: GaussianStats) -> Tensor:
        """Expected sample [..., S]."""
        return stats.mean

    def network_input(self, stats: GaussianStats) -> Tensor:
        """The distribution as a network may read it: mean and std, [..., 2S]."""
        return torch.cat([stats.mean, stats.std], -1)

    def kl(self, posterior: GaussianStats, prior: GaussianStats) -> Tensor:
        """KL(posterior || prior) summed over the latent: [...]."""
        ratio = (posterior.std / prior.std) ** 2
        distance = ((posterior.mean - prior.mean) / prior.std) ** 2
        return 0.5 * (ratio + distance - 1.0 - ratio.log()).sum(-1)

    def kl_to_standard(self, stats: GaussianStats) -> Tensor:
        """KL to N(0, 1) summed over the latent: [...]. PlaNet's global prior."""
        return 0.5 * (stats.std.square() + stats.mean.square() - 1.0 - 2.0 * stats.std.log()).sum(-1)

    def entropy(self, stats: GaussianStats) -> Tensor:
        """Differential entropy in nats summed over the latent: [...]."""
        return (stats.std.log() + 0.5 * math.log(2.0 * math.pi * math.e)).sum(-1)


@dataclass(frozen=True)
class CategoricalStats(TensorStruct):
    """Log-probabilities of independent categorical variables: normalised, and after the uniform share is mixed in."""

    logits: Tensor  # [...,S,K]


@dataclass(frozen=True)
class CategoricalLatent:
    """`variables` one-hot vectors of `classes`, sampled with straight-through gradients. Defaults: DreamerV2 (danijar/dreamerv2).

    unimix mixes that share of a uniform distribution into every probability, which bounds the KL; DreamerV3 uses 0.01.
    """

    variables: int = 32
    classes: int = 32
    unimix: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.variables <= 1024 or not 2 <= self.classes <= 1024:
            raise ValueError(f"variables is {self.variables}, classes {self.classes}; expected 1 to 1024 variables of 2 to 1024 classes.")
        if not 0.0 <= self.unimix < 1.0:
            raise ValueError(f"unimix is {self.unimix}; expected in [0, 1).")

    @property
    def raw_size(self) -> int:
        """Width of the network output that parametrises one latent."""
        return self.variables * self.classes

    @property
    def flat_size(self) -> int:
        """Width of a sample as the networks see it."""
        return self.variables * self.classes

    @property
    def noise_lanes(self) -> int:
        """Uniforms needed for one sample: one for each variable."""
        return self.variables

    @property
    def bound(self) -> float:
        """No entry of a sample or a mean exceeds this."""
        return 1.0

    def stats(self, raw: Tensor) -> CategoricalStats:
        """raw [..., S*K] -> log-probabilities [..., S, K], in float32 even under autocast."""
        raw = raw.float().unflatten(-1, (self.variables, self.classes))
        if self.unimix == 0.0:
            return CategoricalStats(functional.log_softmax(raw, -1))
        return CategoricalStats(self._mix(_softmax(raw)).log())

    def sample(self, stats: CategoricalStats, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """One-hot samples, flat [..., S*K] float32, by the inverse distribution function; noise [..., S] uniform.

        Noise of exactly 0.5 gives the mode; dreamgym.noise never draws that, as its uniforms are (k + 0.5) / 2**23. temperature
        divides the logits before the uniform share is mixed in; 0 gives the mode. The values are exactly one-hot; the gradient is
        that of the probabilities after mixing. Source: specs/dreamer.md B.1, C.3.
        """
        probs = stats.logits.exp()
        if not (isinstance(temperature, float) and temperature == 1.0):
            probs, noise = self._tempered(probs, noise, temperature)
        with torch.no_grad():
            index, middle = _inverse_cdf(probs, noise), noise == 0.5
            # A CPU takes as long for this argmax as for all the rest, and can look first; a GPU would have to wait to look.
            if probs.device.type != "cpu" or torch.compiler.is_compiling() or bool(middle.any()):
                index = torch.where(middle, probs.argmax(-1), index)
            sample = torch.zeros_like(probs).scatter_(-1, index.unsqueeze(-1), 1.0)
        if probs.requires_grad:
            sample = sample + (probs - probs.detach())  # in this order: the bracket is exactly zero
        return sample.flatten(-2)

    def mean(self, stats: CategoricalStats) -> Tensor:
        """Probabilities, flat [..., S*K]."""
        return stats.logits.exp().flatten(-2)

    def network_input(self, stats: CategoricalStats) -> Tensor:
        """The distribution as a network may read it: probabilities, flat [..., S*K]."""
        return self.mean(stats)

    def kl(self, posterior: CategoricalStats, prior: CategoricalStats) -> Tensor:
        """KL(posterior || prior) summed over the variables: [...]."""
        return (posterior.logits.exp() * (posterior.logits - prior.logits)).sum((-2, -1))

    def kl_to_standard(self, stats: CategoricalStats) -> Tensor:
        """KL to uniform classes summed over the variables: [...]."""
        return self.variables * math.log(self.classes) - self.entropy(stats)

    def entropy(self, stats: CategoricalStats) -> Tensor:
        """Entropy in nats summed over the variables: [...]."""
        return -(stats.logits.exp() * stats.logits).sum((-2, -1))

    def _mix(self, probs: Tensor) -> Tensor:
        return probs * (1.0 - self.unimix) + self.unimix / self.classes

    def _tempered(self, probs: Tensor, noise: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities at that temperature, and noise that asks for the mode where it is 0.

        The statistics hold mixed probabilities, so the uniform share comes off first; what is left of a class below 1e-6 of that
        share is rounding, and counts as nothing.
        """
        # A number is filled in where the probabilities are: copied there, a GPU would be waited for in every step.
        temperature = temperature.to(probs) if isinstance(temperature, Tensor) else probs.new_full((), temperature)
        temperature = temperature.unsqueeze(-1)  # [B,1], or [1]
        logits = (probs - self.unimix / self.classes * (1.0 + 1e-6)).clamp(min=1e-30).log()
        noise = torch.where(temperature > 0.0, noise, torch.full_like(noise, 0.5))
        return self._mix(_softmax(logits / temperature.clamp(min=1e-4).unsqueeze(-1))), noise


Latent: TypeAlias = GaussianLatent | CategoricalLatent
LatentStats: TypeAlias = GaussianStats | CategoricalStats


def _softmax(logits: Tensor) -> Tensor:
    """Softmax over the last dimension; of a few classes by hand, because torch's takes five times as long on a CPU for 4 of them."""
    if logits.device.type != "cpu" or logits.shape[-1] >= 8:
        return functional.softmax(logits, -1)
    weights = (logits - logits.detach().amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def _inverse_cdf(probs: Tensor, noise: Tensor) -> Tensor:
    """The class whose stretch of the cumulative distribution holds each uniform: probs [..., K], noise [...] -> int64 [...].

    Counting the inner borders below it cannot leave the range whatever the sum's rounding; and as the uniforms scale with the sum, no
    class of probability 0 is drawn. (torch.searchsorted takes four times as long on a CPU.)
    """
    cumulative = probs.cumsum(-1)
    threshold = (noise * cumulative[..., -1]).unsqueeze(-1)
    return (cumulative[..., :-1] <= threshold).sum(-1)


def temperature_root(temperature: float | Tensor) -> float | Tensor:
    """sqrt(temperature); tensors [B] gain a trailing axis. Source: specs of World Models, std scales by the root."""
    if isinstance(temperature, Tensor):
        return temperature.sqrt().unsqueeze(-1)
    return math.sqrt(temperature)
