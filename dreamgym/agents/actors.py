"""The actor: a network whose raw outputs a policy family turns into a distribution over model actions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dreamgym.nn.networks import MLP, MLPConfig, build_mlp
from dreamgym.nn.policies import ActionDistribution, PolicyFamily

__all__ = ["Actor", "build_head"]


class Actor(nn.Module):
    """Features [..., F] -> raw outputs [..., R]; `distribution` reads those. Two steps, because a dream keeps the raw outputs.

    dimensions counts what the entropy sums over: numbers of a Box, choices of classes.
    """

    def __init__(self, network: nn.Module, family: PolicyFamily, dimensions: int) -> None:
        super().__init__()
        self.network, self.family, self.dimensions = network, family, dimensions

    def forward(self, features: Tensor) -> Tensor:
        return self.network(features)

    def distribution(self, raw: Tensor) -> ActionDistribution:
        """The policy that raw outputs [..., R] stand for."""
        return self.family.distribution(raw)


def build_head(inputs: int, outputs: int, config: MLPConfig, *, init: Literal["torch", "paper"], output_scale: float) -> nn.Module:
    """An actor's or critic's network. init "paper": Xavier, or V3's truncated normal where the norm is rms; "torch": PyTorch's own.

    output_scale multiplies the last layer's weights; its bias stays as it was drawn ("torch") or zero ("paper").
    """
    if init == "paper":
        return build_mlp(inputs, outputs, config, output_scale=output_scale)
    network = MLP(inputs, outputs, layers=config.layers, units=config.units, activation=config.activation)
    with torch.no_grad():
        network[-1].weight.mul_(output_scale)  # type: ignore[operator,union-attr]
    return network
