"""Mixtures of normals that a network foretells codes with: likelihood and tempered samples. Ha and Schmidhuber 2018.

Z dimensions, K components. "per_dim": every dimension has a choice of its own; "shared": one choice for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from dreamgym.models.latents import temperature_root
from dreamgym.noise import to_normal
from dreamgym.structs import TensorStruct

__all__ = [
    "MixtureKind",
    "MixtureStats",
    "choice_entropy",
    "log_prob",
    "mixture_mean",
    "mixture_stats",
    "noise_size",
    "raw_size",
    "sample",
    "tempered",
]

MixtureKind: TypeAlias = Literal["per_dim", "shared"]
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_LEAST_TEMPERATURE = 1e-4  # below it only the likeliest component is left anyway


@dataclass(frozen=True)
class MixtureStats(TensorStruct):
    """A mixture for each of [...] rows. In memory K lies before Z, so that sums over the few components run along the many dimensions."""

    logits: Tensor  # [...,Z,K], "shared": [...,1,K]; normalised log-weights
    mean: Tensor  # [...,Z,K]
    log_std: Tensor  # [...,Z,K]


def raw_size(size: int, mixtures: int, kind: MixtureKind) -> int:
    """Width of the network output for Z = size: 3 K Z, or K + 2 K Z for shared choices."""
    return mixtures * (3 * size if kind == "per_dim" else 1 + 2 * size)


def noise_size(size: int, kind: MixtureKind) -> int:
    """Uniforms for one sample: the choices, then the normals."""
    return size + (size if kind == "per_dim" else 1)


def mixture_stats(raw: Tensor, size: int, mixtures: int, kind: MixtureKind = "per_dim", *, log_std_floor: float = -7.0) -> MixtureStats:
    """raw [..., raw_size] -> statistics in float32 (float64 stays): logits first, then means, then log standard deviations.

    Below log_std_floor the likelihood of a repeated frame would have no bound. Source: specs/world-models.md 4.2, 11.4.
    """
    raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
    choices = size if kind == "per_dim" else 1
    widths = (mixtures * choices, mixtures * size, mixtures * size)
    logits, mean, log_std = (part.unflatten(-1, (mixtures, -1)) for part in raw.split(widths, -1))
    logits = functional.log_softmax(logits, -2)
    return MixtureStats(logits.mT, mean.mT, log_std.clamp(min=log_std_floor).mT)


def log_prob(stats: MixtureStats, target: Tensor) -> Tensor:
    """Log density of targets [...,Z], summed over the dimensions: [...]."""
    error = (target.to(stats.mean.dtype).unsqueeze(-1) - stats.mean) * (-stats.log_std).exp()
    normal = -0.5 * error.square() - stats.log_std - _HALF_LOG_2PI
    if stats.logits.shape[-2] == 1 and normal.shape[-2] > 1:
        normal = normal.sum(-2, keepdim=True)
    return torch.logsumexp(stats.logits + normal, -1).sum(-1)


def tempered(stats: MixtureStats, temperature: float | Tensor) -> Tensor:
    """Probabilities [...,Z,K] of the components at a temperature above 0, a number or [...]: softmax(logits / temperature)."""
    return functional.softmax(stats.logits / _trailing(temperature), -1)


def sample(stats: MixtureStats, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Codes [...,Z]; noise [..., noise_size] uniform. temperature, a number or [...], divides logits and multiplies variances.

    A choice's noise of exactly 0.5 gives the likeliest component (dreamgym.noise never draws that), a normal's gives its mean;
    temperature 0 gives both. Source: specs/world-models.md 4.5.
    """
    Z = stats.mean.shape[-2]
    choose, scatter = noise[..., :-Z], noise[..., -Z:]
    index = _choose(stats.logits, choose, temperature).unsqueeze(-1)
    index = index.expand(*index.shape[:-2], Z, 1)
    mean, log_std = (part.gather(-1, index).squeeze(-1) for part in (stats.mean, stats.log_std))
    return torch.addcmul(mean, log_std.exp() * temperature_root(temperature), to_normal(scatter))


def mixture_mean(stats: MixtureStats) -> Tensor:
    """Expected code [...,Z]."""
    return (stats.logits.exp() * stats.mean).sum(-1)


def choice_entropy(stats: MixtureStats) -> Tensor:
    """Entropy of the choice of a component in nats, averaged over the dimensions: [...]; 0 to log K."""
    return -(stats.logits.exp() * stats.logits).sum(-1).mean(-1)


@torch.no_grad()
def _choose(logits: Tensor, noise: Tensor, temperature: float | Tensor) -> Tensor:
    """Components int64 [...,Z] by the inverse distribution function, normalised per row; noise [...,Z]."""
    if not isinstance(temperature, Tensor) and temperature == 0.0:
        return logits.argmax(-1)
    logits = logits.mT  # [...,K,Z], as it lies in memory
    weights = ((logits - logits.amax(-2, keepdim=True)) / _trailing(temperature)).exp_()
    cumulative = weights.cumsum(-2)
    index = (cumulative[..., :-1, :] <= (noise * cumulative[..., -1, :]).unsqueeze(-2)).sum(-2)
    likeliest = noise == 0.5
    if isinstance(temperature, Tensor):
        likeliest = likeliest | (temperature <= 0.0).unsqueeze(-1)
    # A CPU takes longer for this argmax than for half of the rest, and can look first; a GPU would have to wait to look.
    if logits.device.type != "cpu" or bool(likeliest.any()):
        index = torch.where(likeliest, logits.argmax(-2), index)
    return index


def _trailing(temperature: float | Tensor) -> float | Tensor:
    """Fit to divide logits [...,Z,K]."""
    if isinstance(temperature, Tensor):
        return temperature.clamp(min=_LEAST_TEMPERATURE).unsqueeze(-1).unsqueeze(-1)
    return max(temperature, _LEAST_TEMPERATURE)
