"""Hidden layers of recurrent cores: linear, norm, activation; alone, stacked, or K of them as one batched product."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamgym.nn.networks import Activation, Init, Norm, build_norm
from dreamgym.nn.recurrent import LAYER_EPS, RMS_EPS, trunc_normal

__all__ = ["Dense", "EnsembleDense", "hidden_layers"]


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"elu": functional.elu, "relu": functional.relu, "silu": functional.silu}


class Dense(nn.Linear):
    """Linear, norm, activation: [..., inputs] -> [..., units]."""

    # A Linear instead of a holder of one, so that its weights bear the names they have in bundles of format 1. Functions and no module
    # for a missing norm, because a dream of one slot is all call overhead.

    def __init__(self, inputs: int, units: int, activation: Activation, norm: Norm) -> None:
        super().__init__(inputs, units)
        self.norm = None if norm == "none" else build_norm(norm, units)
        self.activation = _ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        out = functional.linear(x, self.weight, self.bias)
        return self.activation(out if self.norm is None else self.norm(out))


def hidden_layers(inputs: int, units: int, layers: int, activation: Activation, norm: Norm) -> nn.Module:
    """`layers` of Dense; nothing for 0."""
    if layers == 1:
        return Dense(inputs, units, activation, norm)
    return nn.Sequential(*(Dense(units if layer else inputs, units, activation, norm) for layer in range(layers)))


class EnsembleDense(nn.Module):
    """K independent linear layers as one, [K, N, inputs] -> [K, N, units], each with its own norm and the activation, if any."""

    def __init__(self, members: int, inputs: int, units: int, activation: Activation | None = None, norm: Norm = "none") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, inputs, units))
        self.bias = nn.Parameter(torch.zeros(members, 1, units))
        self.norm = None if norm == "none" else _MemberNorm(members, units, norm)
        self.activation = None if activation is None else _ACTIVATIONS[activation]
        self.reset_parameters("xavier")

    def reset_parameters(self, init: Init) -> None:
        """Draw the weights as `initialise` would each member's."""
        inputs, units = self.weight.shape[1:]
        if init == "trunc":
            trunc_normal(self.weight, inputs)
        else:
            bound = math.sqrt(6.0 / (inputs + units))
            nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.baddbmm(self.bias.to(x.dtype), x, self.weight.to(x.dtype))
        out = out if self.norm is None else self.norm(out)
        return out if self.activation is None else self.activation(out)


class _MemberNorm(nn.Module):
    """`build_norm` with scales (and shifts) of their own for each member."""

    def __init__(self, members: int, units: int, norm: Norm) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(members, 1, units))
        self.shift = nn.Parameter(torch.zeros(members, 1, units)) if norm == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[-1:]
        if self.shift is None:
            return (functional.rms_norm(x.float(), width, None, RMS_EPS) * self.scale).to(x.dtype)
        return torch.addcmul(self.shift, functional.layer_norm(x.float(), width, eps=LAYER_EPS), self.scale).to(x.dtype)
