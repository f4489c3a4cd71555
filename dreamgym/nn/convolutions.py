"""Convolutions for square images of 32 to 128 pixels in the two styles of the papers: strided without padding, and pooled."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamgym.nn.networks import Activation, Init, Norm, build_activation, build_norm, check_layer_kinds, initialise
from dreamgym.nn.recurrent import BlockLinear

__all__ = ["ConvConfig", "PooledDecoder", "PooledEncoder", "ValidDecoder", "ValidEncoder", "build_conv_decoder", "build_conv_encoder"]

_BLOCKS = 8  # of the pooled decoder's product with the memory; V3's bspace


@dataclass(frozen=True)
class ConvConfig:
    """Shape of an image encoder and its decoder. Defaults: PlaNet and Dreamer V1.

    valid: kernel 4, stride 2, no padding, channels depth * (1, 2, 4, 8); V2 has depth 48 and elu (specs/dreamer.md A.2, B.3).
    pooled: kernel 5, 2x2 max-pool, channels depth * (2, 3, 4, 4); V3 has depth d/16, silu and norm "rms" (C.4).
    """

    style: Literal["valid", "pooled"] = "valid"
    depth: int = 32
    activation: Activation = "relu"
    norm: Norm = "none"

    def __post_init__(self) -> None:
        if self.style not in ("valid", "pooled"):
            raise ValueError(f"style is {self.style!r}; expected valid or pooled.")
        if not 1 <= self.depth <= 1024:
            raise ValueError(f"depth is {self.depth}; expected 1 to 1024.")
        if self.style == "pooled" and self.depth % 2:
            raise ValueError(f"depth is {self.depth}; the pooled style splits 4 * depth channels into {_BLOCKS} blocks: make it even.")
        check_layer_kinds(self.activation, self.norm)

    def stages(self, size: int) -> int:
        """Number of layers that halve an image of size x size. Raises ValueError for sizes this style cannot invert."""
        exact = size in (32, 64, 128) or (self.style == "pooled" and size == 96)  # 96: V3 on Atari
        if not exact:
            raise ValueError(f"images are {size} pixels wide; expected 32, 64 or 128 (set Preprocess(size=64)).")
        return int(math.log2(size)) - 2

    @property
    def init(self) -> Init:
        """V3's initialiser where V3's norm is, TensorFlow's elsewhere."""
        return "trunc" if self.norm == "rms" else "xavier"


class ChannelNorm(nn.Module):
    """A norm over the channels of [N,C,Y,X], each pixel on its own; free of copies for channels-last tensors."""

    def __init__(self, name: Norm, channels: int) -> None:
        super().__init__()
        self.norm = build_norm(name, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _norm_and_activation(config: ConvConfig, channels: int) -> list[nn.Module]:
    norm = [] if config.norm == "none" else [ChannelNorm(config.norm, channels)]
    return [*norm, build_activation(config.activation)]


class ValidEncoder(nn.Sequential):
    """[N,C,Y,X] -> [N, outputs], 64 pixels through maps of 31, 14, 6 and 2. Source: Ha and Schmidhuber 2018, PlaNet, Dreamer V1 and V2."""

    def __init__(self, size: int, channels: int, config: ConvConfig) -> None:
        widths = [channels] + [config.depth * 2**i for i in range(config.stages(size))]
        modules: list[nn.Module] = []
        for width, following in itertools.pairwise(widths):
            modules += [nn.Conv2d(width, following, 4, stride=2), *_norm_and_activation(config, following)]
        super().__init__(*modules, nn.Flatten())
        self.outputs = 4 * widths[-1]
        initialise(self, config.init)


class ValidDecoder(nn.Module):
    """Features [N,F] -> [N,C,Y,X] without a final activation, 64 pixels through maps of 1, 5, 13 and 30. Source: as ValidEncoder."""

    def __init__(self, size: int, channels: int, config: ConvConfig, *, stoch_size: int, deter_size: int) -> None:
        super().__init__()
        stages = config.stages(size)
        widths = [config.depth * 2**i for i in reversed(range(stages - 1))]
        kernels = [5] * (stages - 2) + [6, 6]
        inner = 4 * config.depth * 2 ** (stages - 1)  # as wide as the encoder's output
        self.dense = nn.Linear(stoch_size + deter_size, inner)  # no activation: the released code has none
        self.deconvs = nn.ModuleList(
            nn.ConvTranspose2d(i, o, k, stride=2) for (i, o), k in zip(itertools.pairwise([inner, *widths, channels]), kernels)
        )
        self.after = nn.ModuleList(nn.Sequential(*_norm_and_activation(config, width)) for width in widths)
        initialise(self, config.init)

    def forward(self, features: Tensor) -> Tensor:
        x = self._first(self.dense(features)).contiguous(memory_format=torch.channels_last)
        for after, deconv in zip(self.after, itertools.islice(self.deconvs, 1, None)):
            x = deconv(after(x))
        return x

    def _first(self, x: Tensor) -> Tensor:
        """A 1x1 map under a transposed kernel is a plain matrix product, which CPUs run several times faster."""
        deconv = self.deconvs[0]
        assert isinstance(deconv, nn.ConvTranspose2d) and deconv.bias is not None
        shape = deconv.weight.shape[1:]
        bias = deconv.bias.repeat_interleave(shape[1] * shape[2])
        return functional.linear(x, deconv.weight.flatten(1).t(), bias).unflatten(-1, shape)


def _pooled_widths(config: ConvConfig, stages: int) -> list[int]:
    return [config.depth * factor for factor in (2, 3, *[4] * (stages - 2))]


class PooledEncoder(nn.Sequential):
    """[N,C,Y,X] -> [N, outputs]: stages of convolution, 2x2 max-pool, norm, activation, down to a map of 4x4. Source: Dreamer V3."""

    def __init__(self, size: int, channels: int, config: ConvConfig) -> None:
        stages = config.stages(size)
        widths = [channels, *_pooled_widths(config, stages)]
        modules: list[nn.Module] = []
        for width, following in itertools.pairwise(widths):
            modules += [nn.Conv2d(width, following, 5, padding=2), nn.MaxPool2d(2), *_norm_and_activation(config, following)]
        super().__init__(*modules, nn.Flatten())
        self.outputs = widths[-1] * (size >> stages) ** 2
        initialise(self, config.init)


class PooledDecoder(nn.Module):
    """Features [N, stoch + deter] -> [N,C,Y,X], no final activation: a map from both parts, then nearest doublings and convolutions.

    The memory reaches the map block by block, each block owning an eighth of the channels. Source: Dreamer V3 (specs/dreamer.md C.4).
    """

    def __init__(self, size: int, channels: int, config: ConvConfig, *, stoch_size: int, deter_size: int) -> None:
        super().__init__()
        stages = config.stages(size)
        self.split = (stoch_size, deter_size)
        side = size >> stages
        widths = _pooled_widths(config, stages)[::-1]
        self.map_shape = (side, side, widths[0])
        inner = math.prod(self.map_shape)
        hidden = 32 * config.depth  # 2d, with d = 16 * depth as in every model size of V3
        if deter_size % _BLOCKS:
            raise ValueError(f"the memory has {deter_size} units; the pooled decoder needs a multiple of {_BLOCKS}.")
        self.from_deter = BlockLinear(deter_size, inner, _BLOCKS) if deter_size else None
        self.from_stoch = nn.Sequential(
            nn.Linear(stoch_size, hidden), build_norm(config.norm, hidden), build_activation(config.activation), nn.Linear(hidden, inner)
        )
        modules = _norm_and_activation(config, widths[0])
        for width, following in itertools.pairwise(widths):
            modules += [nn.Upsample(scale_factor=2), nn.Conv2d(width, following, 5, padding=2), *_norm_and_activation(config, following)]
        modules += [nn.Upsample(scale_factor=2), nn.Conv2d(widths[-1], channels, 5, padding=2)]
        self.stages = nn.Sequential(*modules)
        initialise(self.from_stoch, config.init)
        initialise(self.stages, config.init)

    def forward(self, features: Tensor) -> Tensor:
        stoch, deter = features.split(self.split, -1)
        x = self.from_stoch(stoch).unflatten(-1, self.map_shape)
        if self.from_deter is not None:
            side, _, width = self.map_shape
            blocks = self.from_deter(deter).unflatten(-1, (_BLOCKS, side, side, width // _BLOCKS))
            x = x + blocks.permute(0, 2, 3, 1, 4).flatten(-2)
        return self.stages(x.permute(0, 3, 1, 2))


def build_conv_encoder(size: int, channels: int, config: ConvConfig) -> ValidEncoder | PooledEncoder:
    """Float images [N,channels,size,size] -> [N, .outputs]. Raises ValueError for sizes other than 32, 64, 128 (96 if pooled)."""
    return (ValidEncoder if config.style == "valid" else PooledEncoder)(size, channels, config)


def build_conv_decoder(size: int, channels: int, config: ConvConfig, *, stoch_size: int, deter_size: int) -> ValidDecoder | PooledDecoder:
    """Features [N, stoch + deter] -> images [N,channels,size,size], unbounded. Raises ValueError as build_conv_encoder."""
    decoder = ValidDecoder if config.style == "valid" else PooledDecoder
    return decoder(size, channels, config, stoch_size=stoch_size, deter_size=deter_size)
