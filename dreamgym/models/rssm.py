"""Recurrent state-space models: a memory and a stochastic latent. Hafner et al. 2019 (PlaNet), 2020, 2021 and 2023 (Dreamer)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dreamgym.models.ensemble import spread
from dreamgym.models.latents import CategoricalLatent, GaussianLatent, LatentStats
from dreamgym.nn.dense import Dense, EnsembleDense, hidden_layers
from dreamgym.nn.networks import Activation, Norm, check_layer_kinds, initialise
from dreamgym.nn.recurrent import BlockGRUCell, GRUCell, LayerNormGRUCell
from dreamgym.structs import TensorStruct

__all__ = ["RSSM", "BlockGRUConfig", "GRUConfig", "LayerNormGRUConfig", "RSSMConfig", "RSSMState"]


@dataclass(frozen=True)
class RSSMState(TensorStruct):
    """All the next step needs."""

    deter: Tensor  # [B,D] what is remembered
    stoch: Tensor  # [B,S] what was sampled


@dataclass(frozen=True)
class GRUConfig:
    """The plain GRU of PlaNet and Dreamer V1."""


@dataclass(frozen=True)
class LayerNormGRUConfig:
    """DreamerV2's GRU with one layer norm over all gates."""


@dataclass(frozen=True)
class BlockGRUConfig:
    """DreamerV3's GRU of independent blocks, behind separate input layers; initial weights of the whole RSSM are V3's."""

    blocks: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.blocks <= 256:
            raise ValueError(f"blocks is {self.blocks}; expected 1 to 256.")


@dataclass(frozen=True)
class RSSMConfig:
    """Defaults: Dreamer V1 (danijar/dreamer models.py: deter 200, hidden 200, stoch 30, ELU).

    PlaNet: activation "relu". V2: CategoricalLatent(32, 32), LayerNormGRUConfig. V3 of width d: CategoricalLatent(32, d / 16, 0.01),
    BlockGRUConfig, deter 8 d, hidden d, prior_layers 2, activation "silu", norm "rms" (specs/dreamer.md C.3, C.9).

    path "deterministic" puts the mean where "both" has a sample; "stochastic" has no memory, its deter is the hidden layer over
    [stoch, action] and cell and deter go unused: PlaNet's ablations (specs/planet.md 2.6). prior_members > 1 is an ensemble of
    priors, of which a step draws one (danijar/dreamerv2, `ensemble`).
    """

    latent: GaussianLatent | CategoricalLatent = field(default_factory=GaussianLatent)
    cell: GRUConfig | LayerNormGRUConfig | BlockGRUConfig = field(default_factory=GRUConfig)
    deter: int = 200  # units of the memory
    hidden: int = 200  # units before the cell and before each distribution
    prior_layers: int = 1
    posterior_layers: int = 1
    activation: Activation = "elu"
    norm: Norm = "none"
    path: Literal["both", "deterministic", "stochastic"] = "both"
    prior_members: int = 1

    def __post_init__(self) -> None:
        for name, high in (("deter", 16384), ("hidden", 16384), ("prior_layers", 16), ("posterior_layers", 16), ("prior_members", 64)):
            if not 1 <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 to {high}.")
        check_layer_kinds(self.activation, self.norm)
        if self.path not in ("both", "deterministic", "stochastic"):
            raise ValueError(f"path is {self.path!r}; expected both, deterministic or stochastic.")
        if self.path == "stochastic" and self.prior_members > 1:
            raise ValueError(f"prior_members is {self.prior_members}; the stochastic path's posterior reads one prior, so expected 1.")
        if isinstance(self.cell, BlockGRUConfig) and self.deter % self.cell.blocks:
            raise ValueError(f"deter is {self.deter}; expected a multiple of the cell's {self.cell.blocks} blocks.")


class RSSM(nn.Module):
    """Core over encoder outputs of width E and model actions of width A. Only the prior runs while dreaming.

    h = cell(f(z, a), h); prior p(z | h), posterior q(z | h, embed). Source: specs/dreamer.md A.1, B.1, C.3; specs/planet.md 2.
    With an ensemble of priors the first noise lane draws the member, and may be held for an episode.
    """

    def __init__(self, config: RSSMConfig, *, embed_size: int, action_size: int) -> None:
        super().__init__()
        self.config = config
        self.latent: Any = config.latent  # typed loosely: that its methods take its own statistics is more than a union can say
        latent, hidden, kind = config.latent, config.hidden, (config.activation, config.norm)
        remembers = config.path != "stochastic"
        self.deter_size = config.deter if remembers else hidden  # D of a state
        if isinstance(config.cell, BlockGRUConfig) and remembers:
            self.recurrent_input: nn.Module = _SeparateInputs((latent.flat_size, action_size), hidden)
        else:
            self.recurrent_input = Dense(latent.flat_size + action_size, hidden, *kind)
        self.cell = _cell(config) if remembers else None
        # Without a memory, the layer over [stoch, action] is the prior's first.
        layers = config.prior_layers if remembers else config.prior_layers - 1
        if config.prior_members > 1:
            widths = [self.deter_size] + [hidden] * layers
            self.prior_hidden: nn.Module = nn.Sequential(*(EnsembleDense(config.prior_members, i, hidden, *kind) for i in widths[:-1]))
            self.prior_out: nn.Module = EnsembleDense(config.prior_members, hidden, latent.raw_size)
        else:
            self.prior_hidden = hidden_layers(self.deter_size, hidden, layers, *kind)
            self.prior_out = nn.Linear(hidden, latent.raw_size)
        evidence = config.deter if remembers else latent.raw_size
        self.posterior_hidden = hidden_layers(evidence + embed_size, hidden, config.posterior_layers, *kind)
        self.posterior_out = nn.Linear(hidden, latent.raw_size)
        self._initialise()

    def _initialise(self) -> None:
        init: Literal["xavier", "trunc"] = "trunc" if isinstance(self.config.cell, BlockGRUConfig) else "xavier"
        for part in (self.recurrent_input, self.prior_hidden, self.prior_out, self.posterior_hidden, self.posterior_out):
            initialise(part, init)
            for module in part.modules():
                if isinstance(module, EnsembleDense):
                    module.reset_parameters(init)

    # ---- sizes --------------------------------------------------------------------------------------------------------

    @property
    def stoch_size(self) -> int:
        """S: width of a sample, flat."""
        return self.latent.flat_size

    @property
    def deter_feature_size(self) -> int:
        """How much of the features is memory: D, or 0 on the stochastic path."""
        return 0 if self.config.path == "stochastic" else self.config.deter

    @property
    def feature_size(self) -> int:
        """F = S + deter_feature_size."""
        return self.stoch_size + self.deter_feature_size

    @property
    def noise_lanes(self) -> int:
        """Uniforms one step consumes."""
        return self.episode_lanes + self.latent.noise_lanes

    @property
    def episode_lanes(self) -> int:
        """Lanes that may be held for an episode: the one that draws the prior member, if there are several."""
        return 1 if self.config.prior_members > 1 else 0

    # ---- parts of a step ----------------------------------------------------------------------------------------------

    def initial(self, batch_size: int) -> RSSMState:
        """Zeros, on the parameters' device."""
        like = self.posterior_out.weight
        return RSSMState(
            deter=like.new_zeros(batch_size, self.deter_size, dtype=torch.float32),
            stoch=like.new_zeros(batch_size, self.stoch_size, dtype=torch.float32),
        )

    def recur(self, state: RSSMState, action: Tensor) -> Tensor:
        """Move the memory on: deter [B,D] after `action` [B,A]."""
        x = self.recurrent_input(torch.cat([state.stoch, action], -1))
        return x.to(state.deter.dtype) if self.cell is None else self.cell(x, state.deter)

    def prior_stats(self, deter: Tensor, member: Tensor | None = None) -> LatentStats:
        """Prior p(stoch | deter), deter [..., D]. member [...] int64 says whose, as `prior_member` draws it.

        Raises ValueError if there are several members and none is named.
        """
        if self.config.prior_members == 1:
            return self.latent.stats(self.prior_out(self.prior_hidden(deter)))
        if member is None:
            raise ValueError(f"the prior has {self.config.prior_members} members; pass member=core.prior_member(noise).")
        raw = self._members(deter).flatten(1, -2)
        chosen = raw[member.flatten(), torch.arange(raw.shape[1], device=raw.device)]
        return self.latent.stats(chosen.unflatten(0, member.shape))

    def prior_member(self, noise: Tensor) -> Tensor | None:
        """Which prior a step with this noise [..., L] follows: int64 [...], or None if there is one only."""
        members = self.config.prior_members
        return None if members == 1 else (noise[..., 0] * members).long().clamp_(max=members - 1)

    def posterior_stats(self, deter: Tensor, embed: Tensor) -> LatentStats:
        """Posterior q(stoch | deter, embed); on the stochastic path it reads the prior's statistics in the memory's place."""
        evidence = deter if self.cell is not None else self.latent.network_input(self.prior_stats(deter))
        return self.latent.stats(self.posterior_out(self.posterior_hidden(torch.cat([evidence, embed], -1))))

    def _members(self, deter: Tensor) -> Tensor:
        """Every prior's raw output, [K, ..., R]."""
        flat = deter.flatten(0, -2).expand(self.config.prior_members, -1, -1)
        return self.prior_out(self.prior_hidden(flat)).unflatten(1, deter.shape[:-1])

    def _sample(self, stats: LatentStats, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        if self.config.path == "deterministic":
            return self.latent.mean(stats)
        noise = noise[..., 1:] if self.episode_lanes else noise
        return self.latent.sample(stats, noise, temperature)

    # ---- steps --------------------------------------------------------------------------------------------------------

    def step(self, state: RSSMState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> RSSMState:
        """Dream: the next state from the prior. action [B,A], noise [B,L] uniform."""
        deter = self.recur(state, action)
        return RSSMState(deter, self._sample(self.prior_stats(deter, self.prior_member(noise)), noise, temperature))

    def observe(
        self, state: RSSMState, prev_action: Tensor, embed: Tensor, is_first: Tensor, noise: Tensor
    ) -> tuple[RSSMState, LatentStats]:
        """Awake: the next state from the posterior. is_first [B] zeroes state and prev_action before the step."""
        again = is_first.unsqueeze(-1)  # not a product: NaN times 0 would outlive its episode
        deter, stoch, action = (part.masked_fill(again, 0.0) for part in (state.deter, state.stoch, prev_action))
        deter = self.recur(RSSMState(deter, stoch), action)
        stats = self.posterior_stats(deter, embed)
        return RSSMState(deter, self._sample(stats, noise)), stats

    def features(self, state: RSSMState) -> Tensor:
        """[stoch, deter], on the stochastic path stoch alone: [..., F]."""
        return state.stoch if self.cell is None else torch.cat([state.stoch, state.deter], -1)

    def disagreement(self, state: RSSMState) -> Tensor:
        """Root mean variance of the prior members' means at this memory, [...]; zeros with one member."""
        if self.config.prior_members == 1:
            return state.deter.new_zeros(state.deter.shape[:-1])
        stats = self.latent.stats(self._members(state.deter))
        return spread(self.latent.mean(stats)).mean(-1).sqrt()


class _SeparateInputs(nn.Module):
    """DreamerV3's layers before the cell: one for the sample and one for the action, RMS-normed; [N, sum of sizes] -> [N, 2 units]."""

    def __init__(self, sizes: tuple[int, int], units: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.stoch = Dense(sizes[0], units, "silu", "rms")
        self.action = Dense(sizes[1], units, "silu", "rms")

    def forward(self, joined: Tensor) -> Tensor:
        stoch, action = joined.split(self.sizes, -1)
        action = action / action.abs().clamp(min=1.0).detach()  # actors whose samples leave [-1,1] are heard as if they did not
        return torch.cat([self.stoch(stoch), self.action(action)], -1)


def _cell(config: RSSMConfig) -> nn.Module:
    if isinstance(config.cell, BlockGRUConfig):
        return BlockGRUCell(2 * config.hidden, config.deter, bottleneck=config.hidden, blocks=config.cell.blocks)
    cell = LayerNormGRUCell if isinstance(config.cell, LayerNormGRUConfig) else GRUCell
    return cell(config.hidden, config.deter)
