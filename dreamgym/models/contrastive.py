"""Learn a representation without painting pixels: tell the state that belongs to an observation from the others of the batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamgym.models.latents import GaussianStats
from dreamgym.nn.networks import MLPConfig, build_mlp

__all__ = ["Contrastive", "StateModel", "build_state_model", "info_nce", "score_matrix", "window_rows"]

_INIT_STD = math.log(math.expm1(1.0))  # softplus of this is 1
_LOG_2PI = math.log(2.0 * math.pi)
_NEVER = -1e9  # finite, so that a row without any valid negative does not become NaN


@dataclass(frozen=True)
class Contrastive:
    """InfoNCE in place of reconstruction: scale * -mean(ln q(s|o) - ln sum over negatives), the positive among them.

    contrast_over "obs" varies the observation under a fixed state (the paper's denominator), "state" the state under a fixed
    observation (the released code's). negatives "window": circular shifts of window_batch sequences times window_time steps, fewer
    where the batch is smaller; "all": every row of the batch. layers and units are the state model's.
    Source: Hafner et al. 2020 (Dreamer), appendix; google-research/dreamer; specs/dreamer.md A.5.
    """

    contrast_over: Literal["obs", "state"] = "obs"
    negatives: Literal["window", "all"] = "window"
    window_batch: int = 10
    window_time: int = 30
    scale: float = 1.0
    layers: int = 3
    units: int = 400

    def __post_init__(self) -> None:
        if self.contrast_over not in ("obs", "state") or self.negatives not in ("window", "all"):
            raise ValueError(
                f"contrast_over is {self.contrast_over!r}, negatives is {self.negatives!r}; expected obs|state and window|all."
            )
        for name, high in (("window_batch", 4096), ("window_time", 4096), ("layers", 16), ("units", 8192)):
            if not 1 <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 to {high}.")
        if not 0.0 <= self.scale < math.inf:
            raise ValueError(f"scale is {self.scale}; expected a number of at least 0.")


class StateModel(nn.Module):
    """q(s|o): an embedding -> a diagonal normal over the whole feature [stoch, deter]; std 1.01 at raw 0."""

    def __init__(self, config: Contrastive, *, embed_size: int, feature_size: int) -> None:
        super().__init__()
        self.network = build_mlp(embed_size, 2 * feature_size, MLPConfig(layers=config.layers, units=config.units))

    def forward(self, embed: Tensor) -> GaussianStats:
        """embed [...,E] -> mean and std [...,F], in float32 even under autocast."""
        mean, std = self.network(embed).float().chunk(2, -1)
        return GaussianStats(mean, functional.softplus(std + _INIT_STD) + 0.01)  # the floor of google-research/dreamer


def build_state_model(config: Contrastive, embed_size: int, feature_size: int) -> StateModel:
    """The network the contrastive objective needs beside a model's parts; a WorldModel keeps it as `contrast`."""
    return StateModel(config, embed_size=embed_size, feature_size=feature_size)


def score_matrix(stats: GaussianStats, features: Tensor) -> Tensor:
    """ln q(feature j | observation i) for all pairs as one product: stats [N,F], features [N,F] -> [N,N].

    The square is expanded: -(s^2/std^2 - 2 s mean/std^2 + mean^2/std^2) / 2 - ln std - ln(2 pi) / 2, summed over F.
    """
    with torch.autocast(features.device.type, enabled=False):
        s = features.float()
        precision = stats.std**-2
        weighed = stats.mean * precision
        cross = torch.cat([precision, weighed], -1) @ torch.cat([-0.5 * s * s, s], -1).mT
        own = (0.5 * stats.mean * weighed + stats.std.log()).sum(-1, keepdim=True)
    return cross - own - 0.5 * s.shape[-1] * _LOG_2PI


def window_rows(batch: int, length: int, window_batch: int, window_time: int, device: torch.device) -> Tensor:
    """Flat indices [B*T, W] of the rows that circular shifts put beside each row, the row itself among them.

    10 x 30 means batch shifts -5..+4 times time shifts -15..+14; a window is cut to the distinct shifts of a small batch.
    Source: google-research/dreamer, tools for "cpc" with contrast "window".
    """
    sequence = _shifted(batch, window_batch, device)[:, None, :, None]
    step = _shifted(length, window_time, device)[None, :, None, :]
    return (sequence * length + step).reshape(batch * length, -1)


def _shifted(size: int, window: int, device: torch.device) -> Tensor:
    """[size, W]: row i under shifts -W//2 .. W - W//2 - 1; a shift by k brings row i - k to place i."""
    window = min(window, size)
    shifts = torch.arange(window, device=device) - window // 2
    return (torch.arange(size, device=device).unsqueeze(1) - shifts) % size


def info_nce(stats: GaussianStats, features: Tensor, valid: Tensor, config: Contrastive) -> Tensor:
    """Mean of ln q(s|o) - ln sum over negatives, in nats: at most 0, and -ln N at chance among N. Add ln N for the information found.

    stats and features [B,T,F]; rows of valid [B,T] false neither score nor serve as negatives.
    """
    B, T = valid.shape
    valid = valid.flatten()
    scores = score_matrix(stats.flatten(), features.flatten(0, 1))
    if config.contrast_over == "obs":
        scores = scores.mT
    positive = scores.diagonal()
    barred = torch.where(valid, 0.0, _NEVER)
    if config.negatives == "window":
        rows = window_rows(B, T, config.window_batch, config.window_time, valid.device)
        scores, barred = scores.gather(1, rows), barred[rows]
    gain = positive - torch.logsumexp(scores + barred, -1)
    return torch.where(valid, gain, 0.0).sum() / valid.sum().clamp(min=1)
