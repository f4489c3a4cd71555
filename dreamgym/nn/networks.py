"""Networks that know tensors, not reinforcement learning: MLPs, their ensembles and initialisers, the VAE's convolutions."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamgym.nn.recurrent import RMSNorm, trunc_normal

__all__ = [
    "MLP",
    "Activation",
    "ConvDecoder",
    "ConvEncoder",
    "EnsembleMLP",
    "Init",
    "MLPConfig",
    "Norm",
    "build_activation",
    "build_mlp",
    "build_norm",
    "initialise",
    "to_unit_images",
]

Activation: TypeAlias = Literal["elu", "relu", "silu"]
Norm: TypeAlias = Literal["none", "layer", "rms"]
Init: TypeAlias = Literal["xavier", "trunc"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


class MLP(nn.Sequential):
    """[..., inputs] -> [..., outputs] through `layers` hidden layers of `units`."""

    def __init__(self, inputs: int, outputs: int, *, layers: int = 2, units: int = 200, activation: str = "elu") -> None:
        sizes = [inputs] + [units] * layers
        modules: list[nn.Module] = []
        for width, following in itertools.pairwise(sizes):
            modules += [nn.Linear(width, following), _ACTIVATIONS[activation]()]
        super().__init__(*modules, nn.Linear(sizes[-1], outputs))


@dataclass(frozen=True)
class MLPConfig:
    """Hidden layers of a network: Linear (with bias, also before a norm), norm, activation.

    Defaults: Dreamer V1 and V2 (danijar/dreamer, danijar/dreamerv2). V3 has silu, norm "rms" and units of its model size.
    """

    layers: int = 3
    units: int = 400
    activation: Activation = "elu"
    norm: Norm = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.layers <= 16 or not 1 <= self.units <= 16384:
            raise ValueError(f"layers is {self.layers}, units {self.units}; expected 0 to 16 layers of 1 to 16384 units.")
        check_layer_kinds(self.activation, self.norm)


def check_layer_kinds(activation: str, norm: str) -> None:
    """Raise ValueError for names that no layer has."""
    if activation not in ("elu", "relu", "silu"):
        raise ValueError(f"activation is {activation!r}; expected elu, relu or silu.")
    if norm not in ("none", "layer", "rms"):
        raise ValueError(f"norm is {norm!r}; expected none, layer or rms.")


def build_mlp(inputs: int, outputs: int | None, config: MLPConfig, *, output_scale: float = 1.0, init: Init | None = None) -> nn.Sequential:
    """[..., inputs] -> [..., outputs]; without outputs it ends after the last hidden layer.

    output_scale multiplies the last layer's weights; 0 makes the first outputs exactly zero. init None picks what the papers do:
    truncated normal where the norm is "rms" (V3), else Xavier uniform (TensorFlow's default, which PlaNet, V1 and V2 rely on).
    """
    sizes = [inputs] + [config.units] * config.layers
    modules: list[nn.Module] = []
    for width, following in itertools.pairwise(sizes):
        modules.append(nn.Linear(width, following))
        if config.norm != "none":
            modules.append(build_norm(config.norm, following))
        modules.append(build_activation(config.activation))
    last = None if outputs is None else nn.Linear(sizes[-1], outputs)
    network = nn.Sequential(*modules) if last is None else nn.Sequential(*modules, last)
    initialise(network, init or ("trunc" if config.norm == "rms" else "xavier"))
    if last is not None:
        with torch.no_grad():
            last.weight.mul_(output_scale)
    return network


def build_activation(name: Activation) -> nn.Module:
    """A fresh activation module."""
    return _ACTIVATIONS[name]()


def build_norm(name: Norm, units: int) -> nn.Module:
    """A norm over the last dimension: layer (eps 1e-3, TensorFlow's, as in danijar/dreamerv2), rms (V3), or nothing."""
    if name == "rms":
        return RMSNorm(units)
    return nn.LayerNorm(units, eps=1e-3) if name == "layer" else nn.Identity()


def initialise(network: nn.Module, init: Init) -> None:
    """Draw the weights of every Linear and convolution inside; biases become zero. Other modules keep their own initialisers.

    trunc is V3's: normal cut at two standard deviations, with a std of 1 / sqrt(fan in) after the cut (specs/dreamer.md C.3).
    """
    for module in network.modules():
        if not isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            continue
        if init == "xavier":
            nn.init.xavier_uniform_(module.weight)
        else:
            outputs = module.weight.shape[1 if isinstance(module, nn.ConvTranspose2d) else 0]
            trunc_normal(module.weight, module.weight.numel() // outputs)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class EnsembleMLP(nn.Module):
    """K independent MLPs evaluated as one: [N, inputs] (shared) or [K, N, inputs] -> [K, N, outputs]."""

    def __init__(self, members: int, inputs: int, outputs: int, *, layers: int = 2, units: int = 200, activation: str = "silu") -> None:
        super().__init__()
        self.members = members
        sizes = [inputs] + [units] * layers + [outputs]
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(members, i, o)) for i, o in itertools.pairwise(sizes))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, o)) for o in sizes[1:])
        for weight in self.weights:
            nn.init.trunc_normal_(weight, std=1.0 / (2.0 * math.sqrt(weight.shape[1])))  # as in PETS, Chua et al. 2018
        self.activation = _ACTIVATIONS[activation](inplace=True) if activation != "tanh" else nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.expand(self.members, *x.shape) if x.dim() == 2 else x
        layers = list(zip(self.weights, self.biases))
        for weight, bias in layers[:-1]:
            hidden = self.activation(torch.baddbmm(bias.to(hidden.dtype), hidden, weight.to(hidden.dtype)))
        weight, bias = layers[-1]
        # The few outputs come first in the product: a CPU multiplies [8,200] by [200,256] three times as fast as [256,200] by [200,8].
        narrow = torch.baddbmm(bias.to(hidden.dtype).mT, weight.to(hidden.dtype).mT, hidden.mT)
        return narrow.mT


def to_unit_images(images: Tensor) -> Tensor:
    """Border to inside: uint8 [N,Y,X,C] -> float [N,C,Y,X] in [0,1]."""
    return images.permute(0, 3, 1, 2).float().div_(255.0)


class ConvEncoder(nn.Sequential):
    """64x64 images [N,C,64,64] -> [N,1024]. Source: Ha and Schmidhuber 2018 (specs/world-models.md 3.1), also Dreamer's."""

    def __init__(self, channels: int = 3) -> None:
        sizes = [channels, 32, 64, 128, 256]
        modules: list[nn.Module] = []
        for width, following in itertools.pairwise(sizes):
            modules += [nn.Conv2d(width, following, 4, stride=2), nn.ReLU()]
        super().__init__(*modules, nn.Flatten())


class ConvDecoder(nn.Module):
    """Codes [N,Z] -> image logits [N,C,64,64]; the caller applies the sigmoid. Source: as ConvEncoder."""

    def __init__(self, inputs: int, channels: int = 3) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, 1024)  # no activation: the released code has none
        self.deconv1 = nn.ConvTranspose2d(1024, 128, 5, stride=2)
        self.deconv2 = nn.ConvTranspose2d(128, 64, 5, stride=2)
        self.deconv3 = nn.ConvTranspose2d(64, 32, 6, stride=2)
        self.deconv4 = nn.ConvTranspose2d(32, channels, 6, stride=2)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.dense(codes)
        # A 1x1 map under a 5x5 transposed kernel is a plain matrix product, which CPUs run several times faster.
        weight = self.deconv1.weight.flatten(1)
        x = functional.linear(x, weight.t(), self.deconv1.bias.repeat_interleave(25)).unflatten(-1, (128, 5, 5))  # type: ignore[union-attr]
        x = self.deconv2(functional.relu(x).contiguous(memory_format=torch.channels_last))
        return self.deconv4(functional.relu(self.deconv3(functional.relu(x))))
