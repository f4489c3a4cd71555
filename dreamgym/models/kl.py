"""How far posterior and prior may drift apart: one KL with its two gradients weighed apart, and a floor under it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["KLConfig", "balanced_kl", "floored_mean", "split_kl"]


@dataclass(frozen=True)
class KLConfig:
    """The regulariser of an RSSM: dynamics * floor(KL(sg q || p)) + representation * floor(KL(q || sg p)) + the extras.

    dynamics moves the prior, representation the posterior; equal scales have the gradient of that many ordinary KLs. free_mode says
    whether free_nats floors each row's KL ("element") or their mean ("mean"); below it nothing pulls. global_prior scales
    KL(q || N(0,1)) (for classes: to uniform), which has no floor. overshooting_distance is D, the longest open-loop prediction held
    against its posterior; 1 adds nothing (models/overshooting.py).

    Defaults: Dreamer V1 in TensorFlow 2 (specs/dreamer.md A.4). PlaNet's free_mode is "element": its max(0, KL - 3) has the gradient
    of max(3, KL). V2: (0.8 b, 0.2 b), "mean" (B.2). V3: (1.0, 0.1), free_nats 1, "element" (C.5).
    """

    dynamics: float = 1.0
    representation: float = 1.0
    free_nats: float = 3.0
    free_mode: Literal["mean", "element"] = "mean"
    global_prior: float = 0.0
    overshooting_distance: int = 1
    overshooting_scale: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dynamics", "representation", "free_nats", "global_prior", "overshooting_scale"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number of at least 0.")
        if self.free_mode not in ("mean", "element"):
            raise ValueError(f"free_mode is {self.free_mode!r}; expected mean or element.")
        if not 1 <= self.overshooting_distance <= 1024:
            raise ValueError(f"overshooting_distance is {self.overshooting_distance}; expected 1 (none) to 1024 steps.")

    @property
    def overshoots(self) -> bool:
        """Whether latent overshooting adds a term."""
        return self.overshooting_distance > 1 and self.overshooting_scale > 0.0


def floored_mean(kl: Tensor, settings: KLConfig, mask: Tensor | None = None) -> Tensor:
    """Mean of KLs [...] in nats over the rows of `mask` (all of them without one; 0 where there is none), not below free_nats."""
    if settings.free_mode == "element":
        kl = kl.clamp(min=settings.free_nats)
    mean = kl.mean() if mask is None else torch.where(mask, kl, 0.0).sum() / mask.sum().clamp(min=1)
    return mean.clamp(min=settings.free_nats) if settings.free_mode == "mean" else mean


def split_kl(latent: Any, posterior: Any, prior: Any, settings: KLConfig) -> tuple[Tensor, Tensor]:
    """The two floored halves, weighed and added, and the raw mean KL in nats without gradient. Statistics lead with any dimensions."""
    dynamics = latent.kl(posterior.detach(), prior)
    representation = latent.kl(posterior, prior.detach())
    halves = settings.dynamics * floored_mean(dynamics, settings) + settings.representation * floored_mean(representation, settings)
    return halves, dynamics.detach().mean()


def balanced_kl(latent: Any, posterior: Any, prior: Any, *, balance: float, free_nats: float) -> Tensor:
    """balance * max(KL(sg post || prior), free) + (1 - balance) * max(KL(post || sg prior), free), each a batch mean.

    Source: Hafner et al. 2021 (DreamerV2), eq. 2; free nats after the mean as in the released code.
    """
    return split_kl(latent, posterior, prior, KLConfig(balance, 1.0 - balance, free_nats, "mean"))[0]
