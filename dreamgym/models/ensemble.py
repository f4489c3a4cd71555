"""Probabilistic ensemble for vector observations: trains in seconds on a CPU and knows what it does not know.

K networks predict the next observation's change and the reward as normals; a step samples one member's prediction, and the spread of
their means is the disagreement. Sources: PETS (Chua et al. 2018), MBPO (Janner et al. 2019), MOReL (Kidambi et al. 2020).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamgym.models.latents import temperature_root
from dreamgym.nn.networks import EnsembleMLP
from dreamgym.noise import hash_counters, to_normal
from dreamgym.structs import TensorStruct

__all__ = ["Ensemble", "EnsembleConfig", "EnsembleState", "bootstrap_weights", "spread"]


@dataclass(frozen=True)
class EnsembleState(TensorStruct):
    """The row arrived at. Reward and disagreement belong to the transition, so they cannot be recomputed from obs alone."""

    obs: Tensor  # [B,D] standardised
    reward: Tensor  # [B] in the environment's units
    disagreement: Tensor  # [B] raw spread of the members' means


@dataclass(frozen=True)
class EnsembleConfig:
    """Defaults: 5 members as MBPO's elites; PETS has 3 layers of 200, but 256 units use a CPU's matrix kernels better."""

    members: int = 5
    layers: int = 2
    units: int = 256

    def __post_init__(self) -> None:
        for name, low, high in (("members", 1, 64), ("layers", 1, 16), ("units", 1, 8192)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {low} to {high}.")


class Ensemble(nn.Module):
    """Core over standardised observations [B,D] and model actions [B,A].

    Noise lanes: the first chooses the member (holdable for an episode), the rest are the D + 1 normals of the prediction.
    """

    episode_lanes = 1
    row_low: Tensor
    row_high: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, config: EnsembleConfig, *, obs_size: int, action_size: int) -> None:
        super().__init__()
        self.config = config
        self.obs_size = obs_size
        self.network = EnsembleMLP(config.members, obs_size + action_size, 2 * (obs_size + 1), layers=config.layers, units=config.units)
        self.max_log_std = nn.Parameter(torch.full((obs_size + 1,), 0.25))
        self.min_log_std = nn.Parameter(torch.full((obs_size + 1,), -5.0))
        unbounded = torch.full((obs_size + 1,), torch.finfo(torch.float32).max)
        self.register_buffer("row_low", -unbounded)  # of [obs, reward]: where every real row lies, standardised obs and raw reward
        self.register_buffer("row_high", unbounded.clone())
        self.register_buffer("target_mean", torch.zeros(obs_size + 1))  # of [change of obs, reward]
        self.register_buffer("target_std", torch.ones(obs_size + 1))

    @property
    def feature_size(self) -> int:
        """F = D: the observation is the state."""
        return self.obs_size

    @property
    def noise_lanes(self) -> int:
        """Uniforms one step consumes."""
        return self.obs_size + 2

    def initial(self, batch_size: int) -> EnsembleState:
        """Zeros: the mean observation."""
        zeros = self.target_mean.new_zeros(batch_size)
        return EnsembleState(self.target_mean.new_zeros(batch_size, self.obs_size), zeros, zeros.clone())

    def distribution(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Every member's normal over the standardised target: mean and log_std, each [K,N,D+1]."""
        mean, log_std = self.network(torch.cat([obs, action], -1)).float().chunk(2, -1)
        return mean, self._bounded(log_std)

    def _bounded(self, log_std: Tensor) -> Tensor:
        """Softly between the learned bounds, as in PETS."""
        log_std = self.max_log_std - functional.softplus(self.max_log_std - log_std)
        return self.min_log_std + functional.softplus(log_std - self.min_log_std)

    def step(self, state: EnsembleState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> EnsembleState:
        """Dream: one member's sample for each row. action [B,A], noise [B,D+2] uniform."""
        raw = self.network(torch.cat([state.obs, action], -1)).float()
        K, N = raw.shape[:2]
        member = (noise[:, 0] * K).long().clamp_(max=K - 1)
        mean, log_std = raw[member, torch.arange(N, device=raw.device)].chunk(2, -1)
        std = self._bounded(log_std).exp() * temperature_root(temperature)
        target = torch.addcmul(mean, std, to_normal(noise[:, 1:]))
        change_reward = torch.addcmul(self.target_mean, target, self.target_std)
        row = torch.cat([state.obs + change_reward[:, :-1], change_reward[:, -1:]], -1)
        row = torch.clamp(row, self.row_low, self.row_high)  # an agent would find rewards and speeds that no world pays
        # In units of a typical change, and of the worst dimension: one confused coordinate is enough to be lost.
        disagreement = spread(raw[..., : self.obs_size + 1]).amax(-1).sqrt()
        return EnsembleState(row[:, :-1], row[:, -1], disagreement)

    def observe(
        self, state: EnsembleState, prev_action: Tensor, embed: Tensor, is_first: Tensor, noise: Tensor
    ) -> tuple[EnsembleState, None]:
        """Awake: the observation is the state; nothing to infer."""
        zeros = embed.new_zeros(embed.shape[0])
        return EnsembleState(embed, zeros, zeros.clone()), None

    def features(self, state: EnsembleState) -> Tensor:
        """The standardised observation [..., D]."""
        return state.obs

    def loss(self, obs: Tensor, action: Tensor, next_obs: Tensor, reward: Tensor, weight: Tensor) -> Tensor:
        """Negative log likelihood of transitions, weighted [K,N] by each member's bootstrap; mean over all. Rows are [N,...]."""
        target = torch.cat([next_obs - obs, reward.unsqueeze(-1)], -1)
        target = (target - self.target_mean) / self.target_std
        mean, log_std = self.distribution(obs, action)
        nll = (0.5 * ((target - mean) * torch.exp(-log_std)) ** 2 + log_std).mean(-1)
        bounds = 0.01 * (self.max_log_std - self.min_log_std).sum()  # pulls the learned bounds together, as in PETS
        return (nll * weight).sum() / weight.sum().clamp(min=1.0) + bounds


def spread(members: Tensor) -> Tensor:
    """Variance over the members, [K,...] -> [...]. Tensor.var over a leading dimension takes fifty times as long on a CPU."""
    return (members - members.mean(0)).square().mean(0)


def bootstrap_weights(index: Tensor, members: int) -> Tensor:
    """How often each member's bootstrap resample holds each row: Poisson(1) counts [K,N], a pure function of the row index [N].

    Hashing replaces K stored resamples, so a growing replay never reshuffles what a member has seen.
    """
    zero = torch.zeros_like(index)
    bits = hash_counters(index, zero, zero, members).t().contiguous()
    uniforms = ((bits >> 40) & 0xFFFFFF).float() / 2.0**24
    return torch.bucketize(uniforms, _poisson_thresholds(index.device)).float()


@functools.lru_cache(maxsize=16)
def _poisson_thresholds(device: torch.device) -> Tensor:
    """Cumulative Poisson(1) up to 4; the tail beyond carries 0.4 % and is folded into 5. Kept, since copying it to a GPU would wait."""
    with torch.inference_mode(False):  # a tensor born in inference mode could never meet autograd again
        return torch.tensor([0.36788, 0.73576, 0.91970, 0.98101, 0.99634], device="cpu").to(device)
