"""Convolutional variational autoencoder, World Models' V: 64x64 images to short codes. Ha and Schmidhuber 2018."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamgym.nn.networks import ConvDecoder, ConvEncoder, to_unit_images
from dreamgym.noise import to_normal

__all__ = ["VAE", "VAEConfig", "kl_to_standard_normal"]


@dataclass(frozen=True)
class VAEConfig:
    """Architecture of V. code 32 for CarRacing, 64 for TakeCover in the paper."""

    code: int = 32
    channels: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.code <= 4096:
            raise ValueError(f"code is {self.code}; expected 1 to 4096.")
        if not 1 <= self.channels <= 16:
            raise ValueError(f"channels is {self.channels}; expected 1 to 16.")


class VAE(nn.Module):
    """Encoder and decoder of specs/world-models.md 3.1: 4,348,547 parameters with a code of 32."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.convolutions = ConvEncoder(config.channels)
        self.mean = nn.Linear(1024, config.code)
        self.log_var = nn.Linear(1024, config.code)
        self.decoder = ConvDecoder(config.code, config.channels)

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Unit images [N,C,64,64] -> mean and log variance of the code, each [N,Z] float32."""
        hidden = self.convolutions(images)
        return self.mean(hidden).float(), self.log_var(hidden).float()

    def encode(self, images: Tensor) -> Tensor:
        """uint8 [N,64,64,C] -> mean codes [N,Z]."""
        return self.posterior(to_unit_images(images))[0]

    def encode_stats(self, images: Tensor) -> Tensor:
        """uint8 [N,64,64,C] -> [mean, log variance] of the codes [N,2Z]."""
        return torch.cat(self.posterior(to_unit_images(images)), -1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [N,Z] -> uint8 [N,64,64,C]."""
        pixels = torch.sigmoid(self.decoder(codes).float())
        return pixels.mul_(255.0).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def loss(
        self, images: Tensor, noise: Tensor, *, kl_scale: float = 1.0, kl_tolerance: float = 0.5, row_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Reconstruction and KL terms, each averaged over the batch; their sum is the loss.

        images uint8 [N,64,64,C], noise [N,Z] uniform. Reconstruction is the squared error summed over pixels, rows weighted by row_weight
        [64] if given. The KL is floored per image at kl_tolerance * Z: below it no gradient flows. Source: specs/world-models.md 3.2.
        """
        pixels = to_unit_images(images)
        mean, log_var = self.posterior(pixels)
        code = mean + (0.5 * log_var).exp() * to_normal(noise)
        error = (torch.sigmoid(self.decoder(code).float()) - pixels) ** 2
        if row_weight is not None:
            error = error * row_weight.view(1, 1, -1, 1)
        reconstruction = error.flatten(1).sum(-1).mean()
        kl = kl_to_standard_normal(mean, log_var).clamp(min=kl_tolerance * self.config.code).mean()
        return reconstruction, kl_scale * kl


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0,1)) summed over dimensions: [N]."""
    return -0.5 * (1.0 + log_var - mean**2 - log_var.exp()).sum(-1)
