"""How numbers of the environment become numbers for networks, and back: one object, so that encoder and decoder cannot disagree."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from dreamgym.nn.distributions import symexp, symlog
from dreamgym.noise import hash_counters
from dreamgym.structs import ObsTensors, Spec

__all__ = ["ObservationScaling", "quantise", "restore"]

_UNBOUNDED = 1e30  # before `fit`, every prediction is in range; finite, so that the margin's arithmetic is
_MARGIN = 0.1  # share of the data's width by which its range is widened, as for VectorConfig


class ObservationScaling(nn.Module):
    """Scales every part of a Spec's observation. Vectors: raw, symlog, and standardised by what `fit` saw; images: [-0.5, 0.5).

    bits 8 is x / 255 - 0.5 (V1 to V3); fewer bits are PlaNet's `quantise`. Buffers cover the concatenated vectors, in the parts' order.
    Raises TypeError for observation spaces that Spec.observation_parts refuses.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    space_low: Tensor
    space_high: Tensor

    def __init__(self, spec: Spec, *, symlog: bool = False, standardise: bool = False, bits: int = 8) -> None:
        super().__init__()
        self.symlog, self.standardise, self.bits = symlog, standardise, bits
        parts = spec.observation_parts
        self.is_dict = isinstance(spec.observation_space, spaces.Dict)
        self.images = {name: part for name, part in parts.items() if isinstance(part, spaces.Box) and len(part.shape) == 3}
        self.classes = {name: part for name, part in parts.items() if isinstance(part, spaces.Discrete)}
        self.vectors = {name: part for name, part in parts.items() if isinstance(part, spaces.Box) and len(part.shape) == 1}
        self.widths = [int(part.shape[0]) for part in self.vectors.values()]
        D = sum(self.widths)
        for name, value in (("mean", 0.0), ("std", 1.0), ("low", -_UNBOUNDED), ("high", _UNBOUNDED)):
            self.register_buffer(name, torch.full((D,), value))
        for name, side in (("space_low", "low"), ("space_high", "high")):
            bounds = [np.clip(getattr(part, side), -_UNBOUNDED, _UNBOUNDED).astype(np.float32) for part in self.vectors.values()]
            self.register_buffer(name, torch.as_tensor(np.concatenate(bounds) if bounds else np.zeros(0, np.float32)), persistent=False)

    @property
    def dense_size(self) -> int:
        """Width of everything that is not an image: vectors, and one-hots of classes."""
        return sum(self.widths) + sum(int(part.n) for part in self.classes.values())

    def parts(self, obs: ObsTensors) -> dict[str, Tensor]:
        """An observation's tensors by the names of its parts."""
        if isinstance(obs, dict) != self.is_dict:
            raise TypeError(f"obs is a {type(obs).__name__}, but this model was built for {'a dict' if self.is_dict else 'one tensor'}.")
        return obs if isinstance(obs, dict) else {"obs": obs}

    @torch.no_grad()
    def fit(self, obs: Any) -> None:
        """Take mean, std and range of the vectors from observations [N,...] (tensors or arrays); constant dimensions keep a std of 1."""
        if not self.vectors:
            return
        rows = self._concatenated({name: torch.as_tensor(value).to(self.low.device) for name, value in self.parts(obs).items()})
        self.low.copy_(rows.amin(0))
        self.high.copy_(rows.amax(0))
        inside = symlog(rows) if self.symlog else rows
        mean = inside.mean(0)
        std = (inside - mean).square().mean(0).sqrt()  # Tensor.std over a leading dimension is slow on a CPU
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def vector(self, parts: dict[str, Tensor]) -> Tensor:
        """All vectors as networks see them: parts of [..., D_i] -> [..., D] float32."""
        x = self._concatenated(parts)
        x = symlog(x) if self.symlog else x
        return (x - self.mean) / self.std if self.standardise else x

    def restore_vector(self, inside: Tensor) -> Tensor:
        """Back to the environment's units, clipped to the observation space: [..., D]."""
        x = torch.addcmul(self.mean, inside.float(), self.std) if self.standardise else inside.float()
        return torch.clamp(symexp(x) if self.symlog else x, self.space_low, self.space_high)

    def in_range(self, vector: Tensor) -> Tensor:
        """Whether [N,D], in the environment's units, lies within the widened range of the data in every dimension: bool [N]."""
        margin = _MARGIN * (self.high - self.low)
        return ((vector >= self.low - margin) & (vector <= self.high + margin)).all(-1)

    def one_hot(self, name: str, classes: Tensor) -> Tensor:
        """Classes [...] of a Discrete part -> [..., n] float32."""
        part = self.classes[name]
        return torch.nn.functional.one_hot(classes.long() - int(part.start), int(part.n)).float()

    def image(self, images: Tensor, dither: Tensor | None = None) -> Tensor:
        """uint8 [N,Y,X,C] -> float in [-0.5, 0.5], same shape. dither [N]: see `quantise`."""
        if self.bits == 8:
            return (images / 255.0).sub_(0.5)
        return quantise(images, self.bits, dither)

    def restore_image(self, inside: Tensor) -> Tensor:
        """[N,Y,X,C] in [-0.5, 0.5], clipped, -> uint8."""
        if self.bits == 8:
            return inside.float().add(0.5).mul_(255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
        return restore(inside, self.bits)

    def _concatenated(self, parts: dict[str, Tensor]) -> Tensor:
        return torch.cat([parts[name].float() for name in self.vectors], -1)


def quantise(images: Tensor, bits: int = 5, dither: Tensor | None = None) -> Tensor:
    """Keep the highest `bits` of uint8 images [N,...] and fill the lost ones with noise: float32 in [-0.5, 0.5).

    dither [N] in (0,1) is hashed to one uniform per pixel, so equal dithers give equal pixels; None, or 0.5, gives the bin's centre.
    Spends likelihood on what can be seen. Source: PlaNet's released code (specs/planet.md 1).
    """
    bins = 2**bits
    y = (images >> (8 - bits)).float()
    if dither is None:
        return y.add_(0.5).mul_(1.0 / bins).sub_(0.5)
    return y.add_(_pixel_uniforms(dither, y.shape)).mul_(1.0 / bins).sub_(0.5)


def restore(inside: Tensor, bits: int = 5) -> Tensor:
    """Undo `quantise` up to the lost bits: [...] clipped to [-0.5, 0.5), -> uint8 x - x mod 2^(8-bits)."""
    bins = 2**bits
    return inside.float().add(0.5).mul_(bins).floor_().mul_(256 // bins).clamp_(0.0, 255.0).to(torch.uint8)


def _pixel_uniforms(dither: Tensor, shape: torch.Size) -> Tensor:
    """Uniforms of `shape` [N,...], row n a pure function of dither[n]. 15 bits each: a bin plus such a number is exact in float32."""
    pixels = shape[1:].numel()
    seed = (dither.float() * 2.0**24).long()
    zero = torch.zeros_like(seed)
    bits = hash_counters(seed, zero, zero, (pixels + 3) // 4).view(torch.int16)[:, :pixels] >> 1
    uniforms = bits.float().add_(16384.5).mul_(2.0**-15)
    centre = (dither == 0.5).unsqueeze(-1)  # noise of 0.5 means the mean everywhere; a hash would break the promise
    return torch.where(centre, 0.5, uniforms).view(shape)
