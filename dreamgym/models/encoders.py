"""Encoders: from what the environment shows to what a core reads, and back. Frozen images codes, or standardised vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamgym.models.vae import VAE, VAEConfig
from dreamgym.structs import Spec

__all__ = ["CodeStatsConfig", "CodeStatsEncoder", "Encoder", "ImageEncoder", "VectorConfig", "VectorEncoder"]


class Encoder(Protocol):
    """Between observations [N,...] (the environment's) and embeddings [N,E]."""

    embed_size: int

    def encode(self, obs: Tensor) -> Tensor:
        """Observations -> embeddings."""
        ...

    def decode(self, embed: Tensor) -> Tensor:
        """Embeddings -> observations, in the observation space."""
        ...

    def in_range(self, embed: Tensor) -> Tensor:
        """Whether each embedding [N,E] lies where the training data lay: bool [N]."""
        ...


class ImageEncoder(nn.Module):
    """The VAE's mean code of an image; trained first, then frozen (two-stage training)."""

    def __init__(self, spec: Spec, config: VAEConfig) -> None:
        super().__init__()
        _check_readable(spec, config)
        self.vae = VAE(config)
        self.embed_size = config.code

    def encode(self, obs: Tensor) -> Tensor:
        """uint8 [N,64,64,C] -> [N,Z]."""
        return self.vae.encode(obs)

    def decode(self, embed: Tensor) -> Tensor:
        """[N,Z] -> uint8 [N,64,64,C]."""
        return self.vae.decode(embed)

    def in_range(self, embed: Tensor) -> Tensor:
        """Codes are bounded by the KL, so the range says nothing: always true."""
        return torch.ones(embed.shape[0], dtype=torch.bool, device=embed.device)


@dataclass(frozen=True)
class CodeStatsConfig:
    """A VAE whose codes are drawn anew wherever they are used, instead of their means. Code 64 for TakeCover in the paper."""

    vae: VAEConfig = field(default_factory=lambda: VAEConfig(code=64))


class CodeStatsEncoder(nn.Module):
    """What the VAE says of an image's code, [mean, log variance]; trained first, then frozen, as ImageEncoder."""

    def __init__(self, spec: Spec, config: CodeStatsConfig) -> None:
        super().__init__()
        _check_readable(spec, config.vae)
        self.vae = VAE(config.vae)
        self.embed_size = 2 * config.vae.code

    def encode(self, obs: Tensor) -> Tensor:
        """uint8 [N,64,64,C] -> [N,2Z]."""
        return self.vae.encode_stats(obs)

    def decode(self, code: Tensor) -> Tensor:
        """Codes [N,Z], not their statistics, -> uint8 [N,64,64,C]."""
        return self.vae.decode(code)

    def in_range(self, code: Tensor) -> Tensor:
        """Codes are bounded by the KL, so the range says nothing: always true."""
        return torch.ones(code.shape[0], dtype=torch.bool, device=code.device)


def _check_readable(spec: Spec, config: VAEConfig) -> None:
    shape = spec.observation_space.shape
    if not spec.is_image or shape is None or shape[:2] != (64, 64) or shape[2] != config.channels:
        raise ValueError(
            f"the VAE reads uint8 images of 64x64x{config.channels}, not {spec.observation_space}; "
            "set Preprocess(size=64), and grey=True for one channel."
        )


@dataclass(frozen=True)
class VectorConfig:
    """range_margin widens the data's range, per dimension, by this share of its width before the range guard fires."""

    range_margin: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.range_margin <= 100.0:
            raise ValueError(f"range_margin is {self.range_margin}; expected 0 to 100.")


class VectorEncoder(nn.Module):
    """Standardises vector observations by the data's mean and std; `fit` learns them."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    space_low: Tensor
    space_high: Tensor

    def __init__(self, spec: Spec, config: VectorConfig) -> None:
        super().__init__()
        space = spec.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"the ensemble reads one-dimensional Box observations, not {space}; flatten it, or use vae-rssm for images.")
        self.embed_size = int(space.shape[0])
        self.config = config
        for name, value in (("mean", 0.0), ("std", 1.0), ("low", -1.0), ("high", 1.0)):
            self.register_buffer(name, torch.full((self.embed_size,), value))
        bounds = [torch.as_tensor(np.asarray(bound, np.float32)) for bound in (space.low, space.high)]
        self.register_buffer("space_low", bounds[0], persistent=False)
        self.register_buffer("space_high", bounds[1], persistent=False)

    @torch.no_grad()
    def fit(self, obs: NDArray[np.float32]) -> None:
        """Take mean, std and range from observations [N,D]; constant dimensions keep a std of 1."""
        for name, value in (("mean", obs.mean(0)), ("low", obs.min(0)), ("high", obs.max(0))):
            getattr(self, name).copy_(torch.as_tensor(value))
        std = torch.as_tensor(obs.std(0))
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def encode(self, obs: Tensor) -> Tensor:
        """[N,D] -> standardised [N,D] float32."""
        return (obs.float() - self.mean) / self.std

    def decode(self, embed: Tensor) -> Tensor:
        """Standardised -> the environment's units, clipped to its observation space."""
        return torch.clamp(embed * self.std + self.mean, self.space_low, self.space_high)

    def in_range(self, embed: Tensor) -> Tensor:
        """Within the widened range of the data in every dimension.

        The prediction is clipped to the observation space first, as `decode` does: a cosine of 1.2 is an inexact 1, not an unknown place.
        """
        margin = self.config.range_margin * (self.high - self.low)
        obs = self.decode(embed)
        return ((obs >= self.low - margin) & (obs <= self.high + margin)).all(-1)
