"""What each core learns from a batch of rows. A loss is a sum of named parts, each a scalar already weighted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from dreamgym.models.contrastive import Contrastive, info_nce
from dreamgym.models.dreamer_heads import members_error
from dreamgym.models.ensemble import bootstrap_weights
from dreamgym.models.imagination import observe_sequence
from dreamgym.models.kl import KLConfig, balanced_kl, split_kl
from dreamgym.models.overshooting import overshooting_kl
from dreamgym.structs import SequenceBatch

if TYPE_CHECKING:
    from dreamgym.models.world_model import WorldModel

__all__ = [
    "Contrastive",
    "DreamerObjective",
    "EnsembleObjective",
    "KLConfig",
    "LatentObjective",
    "Losses",
    "Reconstruction",
    "RewardOnly",
    "balanced_kl",
]


@dataclass(frozen=True)
class Losses:
    """total is what to differentiate, the sum of parts; metrics are for the log only; states are the posteriors [B,T]."""

    total: Tensor
    parts: dict[str, Tensor]
    states: Any
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LatentObjective:
    """Two-stage RSSM: reconstruct the frozen code, predict reward and end, keep prior and posterior together.

    Defaults are the measured CPU recipe for CarRacing (docs/log.md), not a paper's.
    """

    code_scale: float = 5.0
    kl_scale: float = 1.0
    kl_balance: float = 0.8
    free_nats: float = 1.0
    reward_scale: float = 10.0
    continue_scale: float = 2.0

    def __post_init__(self) -> None:
        for name in ("code_scale", "kl_scale", "free_nats", "reward_scale", "continue_scale"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number of at least 0.")
        if not 0.0 <= self.kl_balance <= 1.0:
            raise ValueError(f"kl_balance is {self.kl_balance}; expected 0 to 1.")

    def losses(self, model: WorldModel, batch: SequenceBatch, noise: Tensor, start: Any = None) -> Losses:
        """batch [B,T], noise [B,T,L] uniform; start: the states [B] before the first rows, zeros without."""
        core, heads = model.core, model.heads
        embed = batch.embed if batch.embed is not None else model.embed(batch.obs)
        states, posterior = observe_sequence(core, embed, batch.prev_action, batch.is_first, noise, start)
        prior = core.prior_stats(states.deter, core.prior_member(noise))
        features = core.features(states)
        valid = batch.valid.float()
        code_error = ((heads.code(states, features) - embed) ** 2).sum(-1) * valid
        settings = heads.config
        reward = batch.reward if settings.reward_clip is None else batch.reward.clamp(-settings.reward_clip, settings.reward_clip)
        reward_error = ((heads.reward(states, features) - reward) / settings.reward_scale) ** 2
        logit = heads.continue_logit(states, features)
        parts = {
            "code": self.code_scale * code_error.mean(),
            "kl": self.kl_scale * balanced_kl(core.latent, posterior, prior, balance=self.kl_balance, free_nats=self.free_nats),
            "reward": self.reward_scale * reward_error.mean(),
            "continue": self.continue_scale * functional.binary_cross_entropy_with_logits(logit, (~batch.is_terminal).float()),
            "members": members_error(heads.members, states.deter, embed, batch),
        }
        return Losses(torch.stack(list(parts.values())).sum(), parts, states)


@dataclass(frozen=True)
class EnsembleObjective:
    """Likelihood of transitions for every member, and a class-balanced end for the arrived-at observation."""

    continue_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.continue_scale < math.inf:
            raise ValueError(f"continue_scale is {self.continue_scale}; expected a number of at least 0.")

    def losses(self, model: WorldModel, batch: SequenceBatch, noise: Tensor, start: Any = None) -> Losses:
        """batch [B,T] with T >= 2; transitions are the row pairs inside an episode. noise and start are unused: no memory, no sample."""
        core, heads = model.core, model.heads
        embed = batch.embed if batch.embed is not None else model.embed(batch.obs)
        inside = (~batch.is_first & batch.valid)[:, 1:].flatten()
        weight = bootstrap_weights(batch.index[:, 1:].flatten(), core.config.members) * inside
        obs, next_obs = embed[:, :-1].flatten(0, 1), embed[:, 1:].flatten(0, 1)
        nll = core.loss(obs, batch.prev_action[:, 1:].flatten(0, 1), next_obs, batch.reward[:, 1:].flatten(), weight)
        ends = self._balanced_end(heads, next_obs, batch.is_terminal[:, 1:].flatten())
        parts = {"transition": nll, "continue": self.continue_scale * ends}
        states, _ = core.observe(None, None, embed.flatten(0, 1), None, None)
        return Losses(torch.stack(list(parts.values())).sum(), parts, states.map(lambda x: x.unflatten(0, embed.shape[:2])))

    def _balanced_end(self, heads: Any, obs: Tensor, is_terminal: Tensor) -> Tensor:
        """Cross-entropy in which ends and continuations weigh the same, however rare ends are."""
        logit = heads.continue_logit(None, obs)
        share = heads.terminal_share
        terminal_weight = torch.where(share > 0, 0.5 / share.clamp(min=1e-6), torch.zeros_like(share))
        going_weight = torch.where(share > 0, 0.5 / (1.0 - share).clamp(min=1e-6), torch.ones_like(share))
        weight = torch.where(is_terminal, terminal_weight, going_weight)
        return (functional.binary_cross_entropy_with_logits(logit, (~is_terminal).float(), reduction="none") * weight).mean()


@dataclass(frozen=True)
class Reconstruction:
    """Paint every observation: scale * its negative log likelihood, summed over the observation. What works best in the papers."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.scale < math.inf:
            raise ValueError(f"scale is {self.scale}; expected a number of at least 0.")


@dataclass(frozen=True)
class RewardOnly:
    """Nothing but rewards, ends and the KL shape the representation; the decoder watches. Not sufficient in the paper (A.5)."""


@dataclass(frozen=True)
class DreamerObjective:
    """Joint training of encoder, RSSM and heads, as PlaNet and all Dreamers do.

    kl, reward_scale and continue_scale weigh against the observation's term. PlaNet: reward_scale 10 and KLConfig(free_mode="element");
    V1: the defaults, continue_scale 10 where it has a continue head; V2: continue_scale 5 on Atari. Under Contrastive and RewardOnly the
    decoder learns from detached features, to render and to diagnose. Source: specs/dreamer.md A.4, A.5, B.3, C.5, E.1; planet.md 3.
    """

    observation: Reconstruction | Contrastive | RewardOnly = field(default_factory=Reconstruction)
    kl: KLConfig = field(default_factory=KLConfig)
    reward_scale: float = 1.0
    continue_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("reward_scale", "continue_scale"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number of at least 0.")

    def losses(self, model: WorldModel, batch: SequenceBatch, noise: Tensor, start: Any = None) -> Losses:
        """batch [B,T], noise [B,T,L] uniform; start: the states [B] before the first rows, zeros without.

        Precomputed embeddings are not read: the encoder is trained here. Metrics: the raw KL and both entropies, in nats.
        """
        core, heads = model.core, model.heads
        embed = model.embed(batch.obs, grad=True, dither=_dither(noise))
        states, posterior = observe_sequence(core, embed, batch.prev_action, batch.is_first, noise, start)
        prior = core.prior_stats(states.deter, core.prior_member(noise))
        features = core.features(states)
        parts, metrics = self._observation(model, batch, embed, features, _dither(noise))
        parts["reward"] = self.reward_scale * heads.reward_loss(features, batch.reward).mean()
        parts["continue"] = self.continue_scale * heads.continue_loss(features, batch.is_terminal).mean()
        parts["kl"], metrics["kl"] = split_kl(core.latent, posterior, prior, self.kl)
        if self.kl.global_prior > 0.0:
            parts["global_prior"] = self.kl.global_prior * core.latent.kl_to_standard(posterior).mean()
        if self.kl.overshoots:
            parts["overshooting"] = self.kl.overshooting_scale * overshooting_kl(core, states, posterior, batch, noise, self.kl)
        parts["members"] = heads.members_loss(states, embed.detach(), batch)
        with torch.no_grad():
            metrics["prior_entropy"] = core.latent.entropy(prior).mean()
            metrics["posterior_entropy"] = core.latent.entropy(posterior).mean()
        return Losses(torch.stack(list(parts.values())).sum(), parts, states, metrics)

    def _observation(
        self, model: WorldModel, batch: SequenceBatch, embed: Tensor, features: Tensor, dither: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parts and metrics of what was seen; rows whose observation means nothing do not count."""
        joint = isinstance(self.observation, Reconstruction)
        scale = self.observation.scale if isinstance(self.observation, Reconstruction) else 1.0
        rows = batch.valid.sum().clamp(min=1)
        painted = model.heads.decoder.losses(features if joint else features.detach(), batch.obs, dither)
        prefix = "obs." if isinstance(batch.obs, dict) else ""  # a Dict may call its parts "reward" or "kl"
        parts = {f"{prefix}{key}": scale * torch.where(batch.valid, loss, 0.0).sum() / rows for key, loss in painted.items()}
        if not isinstance(self.observation, Contrastive):
            return parts, {}
        assert model.contrast is not None
        gain = info_nce(model.contrast(embed), features, batch.valid, self.observation)
        parts["contrastive"] = -self.observation.scale * gain
        return parts, {"contrastive_gain": gain.detach()}


def _dither(noise: Tensor) -> Tensor:
    """[B,T] uniforms that seed the noise of 5-bit images, hashed further there: the last lane, which no dream holds for an episode."""
    return noise[..., -1]
