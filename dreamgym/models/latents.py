"""Stochastic latents as objects: how raw network outputs become a distribution, a sample and a KL."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dreamgym.noise import to_normal
from dreamgym.structs import TensorStruct

__all__ = ["GaussianLatent", "GaussianStats"]


@dataclass(frozen=True)
class GaussianStats(TensorStruct):
    """Parameters of a diagonal normal; they travel beside the state, never inside it."""

    mean: Tensor  # [...,S]
    std: Tensor  # [...,S]


@dataclass(frozen=True)
class GaussianLatent:
    """Diagonal normal with a floor on its std. Defaults: PlaNet and Dreamer V1 (danijar/dreamer models.py)."""

    size: int = 30
    min_std: float = 0.1  # keeps the KL finite

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 16384:
            raise ValueError(f"size is {self.size}; expected 1 to 16384.")
        if not 0.0 < self.min_std <= 10.0:
            raise ValueError(f"min_std is {self.min_std}; expected in (0, 10].")

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
        return GaussianStats(mean, functional.softplus(std) + self.min_std)

    def sample(self, stats: GaussianStats, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Reparameterised sample [..., S]; noise [..., S] uniform; temperature multiplies the variance."""
        std = stats.std if isinstance(temperature, float) and temperature == 1.0 else stats.std * temperature_root(temperature)
        return torch.addcmul(stats.mean, std, to_normal(noise))

    def kl(self, posterior: GaussianStats, prior: GaussianStats) -> Tensor:
        """KL(posterior || prior) summed over the latent: [...]."""
        ratio = (posterior.std / prior.std) ** 2
        distance = ((posterior.mean - prior.mean) / prior.std) ** 2
        return 0.5 * (ratio + distance - 1.0 - ratio.log()).sum(-1)


def temperature_root(temperature: float | Tensor) -> float | Tensor:
    """sqrt(temperature); tensors [B] gain a trailing axis. Source: specs of World Models, std scales by the root."""
    if isinstance(temperature, Tensor):
        return temperature.sqrt().unsqueeze(-1)
    return math.sqrt(temperature)
