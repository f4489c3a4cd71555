"""Recurrent state-space model: a deterministic GRU memory and a stochastic latent. Hafner et al. 2019 (PlaNet), 2020 (Dreamer)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamgym.models.latents import GaussianLatent, GaussianStats
from dreamgym.nn.networks import GRUCell
from dreamgym.structs import TensorStruct

__all__ = ["RSSM", "RSSMConfig", "RSSMState"]


@dataclass(frozen=True)
class RSSMState(TensorStruct):
    """All the next step needs."""

    deter: Tensor  # [B,D] what is remembered
    stoch: Tensor  # [B,S] what was sampled


@dataclass(frozen=True)
class RSSMConfig:
    """Defaults: Dreamer V1 (danijar/dreamer models.py: deter 200, hidden 200, stoch 30)."""

    latent: GaussianLatent = field(default_factory=GaussianLatent)
    deter: int = 200  # GRU units
    hidden: int = 200  # units before the GRU and before each distribution

    def __post_init__(self) -> None:
        for name in ("deter", "hidden"):
            if not 1 <= getattr(self, name) <= 16384:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 to 16384.")


class RSSM(nn.Module):
    """Core over encoder outputs of width E and model actions of width A. Only the prior runs while dreaming.

    Source: specs/dreamer.md A.1 (danijar/dreamer). h = GRU(ELU(W[z, a]), h); prior p(z|h), posterior q(z|h, embed).
    """

    def __init__(self, config: RSSMConfig, *, embed_size: int, action_size: int) -> None:
        super().__init__()
        self.config = config
        latent, hidden = config.latent, config.hidden
        self.latent = latent
        self.recurrent_input = nn.Linear(latent.flat_size + action_size, hidden)
        self.cell = GRUCell(hidden, config.deter)
        self.prior_hidden = nn.Linear(config.deter, hidden)
        self.prior_out = nn.Linear(hidden, latent.raw_size)
        self.posterior_hidden = nn.Linear(config.deter + embed_size, hidden)
        self.posterior_out = nn.Linear(hidden, latent.raw_size)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module not in (self.cell.input, self.cell.recurrent):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    @property
    def feature_size(self) -> int:
        """F = S + D."""
        return self.latent.flat_size + self.config.deter

    @property
    def noise_lanes(self) -> int:
        """Uniforms one step consumes."""
        return self.latent.noise_lanes

    @property
    def episode_lanes(self) -> int:
        """None of them chooses something that could be held for an episode."""
        return 0

    def initial(self, batch_size: int) -> RSSMState:
        """Zeros, on the parameters' device."""
        like = self.prior_out.weight
        return RSSMState(
            deter=like.new_zeros(batch_size, self.config.deter, dtype=torch.float32),
            stoch=like.new_zeros(batch_size, self.latent.flat_size, dtype=torch.float32),
        )

    def recur(self, state: RSSMState, action: Tensor) -> Tensor:
        """Move the memory on: deter [B,D] after `action` [B,A]."""
        x = functional.elu(self.recurrent_input(torch.cat([state.stoch, action], -1)))
        return self.cell(x, state.deter)

    def prior_stats(self, deter: Tensor) -> GaussianStats:
        """Prior p(stoch | deter), deter [..., D]."""
        return self.latent.stats(self.prior_out(functional.elu(self.prior_hidden(deter))))

    def posterior_stats(self, deter: Tensor, embed: Tensor) -> GaussianStats:
        """Posterior q(stoch | deter, embed)."""
        x = functional.elu(self.posterior_hidden(torch.cat([deter, embed], -1)))
        return self.latent.stats(self.posterior_out(x))

    def step(self, state: RSSMState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> RSSMState:
        """Dream: the next state from the prior. action [B,A], noise [B,S] uniform."""
        deter = self.recur(state, action)
        return RSSMState(deter, self.latent.sample(self.prior_stats(deter), noise, temperature))

    def observe(
        self, state: RSSMState, prev_action: Tensor, embed: Tensor, is_first: Tensor, noise: Tensor
    ) -> tuple[RSSMState, GaussianStats]:
        """Awake: the next state from the posterior. is_first [B] zeroes state and prev_action before the step."""
        keep = (~is_first).unsqueeze(-1).to(state.deter.dtype)
        deter = self.recur(state.map(lambda tensor: tensor * keep), prev_action * keep)
        stats = self.posterior_stats(deter, embed)
        return RSSMState(deter, self.latent.sample(stats, noise)), stats

    def features(self, state: RSSMState) -> Tensor:
        """[stoch, deter]: [..., F]."""
        return torch.cat([state.stoch, state.deter], -1)
