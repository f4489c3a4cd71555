"""Heads of a jointly trained model, as PlaNet and the Dreamers have them: observation, reward, continue, and one-step members."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamgym.models.ensemble import bootstrap_weights, spread
from dreamgym.models.observation_scaling import ObservationScaling
from dreamgym.models.observations import ObservationDecoder, ObservationDecoderConfig
from dreamgym.nn.distributions import BINS, TwoHot, UnitNormal
from dreamgym.nn.networks import EnsembleMLP, MLPConfig, build_mlp
from dreamgym.structs import SequenceBatch, Spec

__all__ = ["DreamerHeads", "DreamerHeadsConfig", "members_error"]


@dataclass(frozen=True)
class DreamerHeadsConfig:
    """Defaults: Dreamer V1's released code on DeepMind Control (no continue head). PlaNet: reward 3 x 300 relu; V2: 4 x 400; V3: 1 x d.

    reward_distribution "two-hot" is V3's, its last layer zero at first. reward_transform "tanh" squashes the targets (V2 on Atari): the
    model then says squashed rewards, and a dream pays those, since tanh cannot be undone where it saturates.
    continue_head None: no episode ever ends. discount_in_target is the factor in the head's target, which continue_prob divides out
    again: gamma for V1 and V2, 1 - 1/333 for V3. It must be the agent's own gamma where a paper multiplies it only once.
    members one-step networks predict the next embedding from the memory; their spread is the model's uncertainty (1 switches it off).
    """

    decoder: ObservationDecoderConfig = field(default_factory=ObservationDecoderConfig)
    reward: MLPConfig = field(default_factory=lambda: MLPConfig(layers=2, units=400))
    reward_distribution: Literal["normal", "two-hot"] = "normal"
    reward_transform: Literal["none", "tanh"] = "none"
    continue_head: MLPConfig | None = None
    discount_in_target: float | None = None
    members: int = 1
    member_units: int = 64

    def __post_init__(self) -> None:
        if self.reward_distribution not in ("normal", "two-hot") or self.reward_transform not in ("none", "tanh"):
            raise ValueError(
                f"reward_distribution is {self.reward_distribution!r}, reward_transform {self.reward_transform!r}; "
                "expected normal or two-hot, and none or tanh."
            )
        if self.discount_in_target is not None and not 0.0 < self.discount_in_target <= 1.0:
            raise ValueError(f"discount_in_target is {self.discount_in_target}; expected None or a number in (0, 1].")
        if not 1 <= self.members <= 64 or not 1 <= self.member_units <= 8192:
            raise ValueError(f"members is {self.members} of {self.member_units} units; expected 1 to 64 of 1 to 8192.")


class DreamerHeads(nn.Module):
    """Networks on features [..., stoch + deter]; everything they say belongs to the state arrived at.

    embed_size and memory_size are needed by members only: what they predict, and the width of state.deter (deter_size, unless the core's
    features leave the memory out). scaling is the encoder's.

    No end is foretold before one was learned from (has_ended). In worlds that never end the continue head is right up to a thousandth,
    but with values of -1000 its gradient would still drown the rewards' in an actor that climbs through the dynamics (docs/log.md).
    """

    has_ended: Tensor

    def __init__(
        self,
        config: DreamerHeadsConfig,
        spec: Spec,
        stoch_size: int,
        deter_size: int,
        *,
        scaling: ObservationScaling,
        embed_size: int,
        memory_size: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        features = stoch_size + deter_size
        self.decoder = ObservationDecoder(spec, config.decoder, stoch_size, deter_size, scaling=scaling)
        two_hot = config.reward_distribution == "two-hot"
        self.reward_net = build_mlp(features, BINS if two_hot else 1, config.reward, output_scale=0.0 if two_hot else 1.0)
        self.continue_net = None if config.continue_head is None else build_mlp(features, 1, config.continue_head)
        self.register_buffer("has_ended", torch.zeros((), dtype=torch.bool))
        memory = deter_size if memory_size is None else memory_size
        self.members = None if config.members == 1 else EnsembleMLP(config.members, memory, embed_size, layers=1, units=config.member_units)

    def reward_distribution(self, features: Tensor) -> UnitNormal | TwoHot:
        """What the reward may be, [...]."""
        raw = self.reward_net(features).float()
        return TwoHot(raw) if self.config.reward_distribution == "two-hot" else UnitNormal(raw.squeeze(-1))

    def reward(self, state: Any, features: Tensor) -> Tensor:
        """Expected reward [...] in the environment's units, or in those of reward_transform."""
        return self.reward_distribution(features).mean

    def reward_loss(self, features: Tensor, reward: Tensor) -> Tensor:
        """Negative log likelihood of rewards [...], given in the environment's units: [...]."""
        target = torch.tanh(reward) if self.config.reward_transform == "tanh" else reward
        return self.reward_distribution(features).loss(target)

    def continue_prob(self, state: Any, features: Tensor) -> Tensor:
        """Chance in [0,1] that the episode goes on, without any discount; exactly 1 until an end was learned from: [...]."""
        always = features.new_ones(features.shape[:-1], dtype=torch.float32)
        if self.continue_net is None:
            return always
        prob = torch.sigmoid(self._continue_logit(features))
        if self.config.discount_in_target is not None:
            prob = (prob / self.config.discount_in_target).clamp(max=1.0)
        return torch.where(self.has_ended, prob, always)

    def continue_loss(self, features: Tensor, is_terminal: Tensor) -> Tensor:
        """Cross-entropy [...] against the soft target gamma * (1 - is_terminal); zero without a head. Notes whether there was an end."""
        if self.continue_net is None:
            return features.new_zeros(features.shape[:-1], dtype=torch.float32)
        self.has_ended.logical_or_(is_terminal.any())
        target = (~is_terminal).float() * (self.config.discount_in_target or 1.0)
        return functional.binary_cross_entropy_with_logits(self._continue_logit(features), target, reduction="none")

    def _continue_logit(self, features: Tensor) -> Tensor:
        assert self.continue_net is not None
        return self.continue_net(features).squeeze(-1).float()

    def disagreement(self, state: Any) -> Tensor:
        """Spread of the members [N], zero without: the memory alone holds the last state and action, so no other input is needed."""
        if self.members is None:
            return state.deter.new_zeros(state.deter.shape[:-1])
        return spread(self.members(state.deter).float()).mean(-1).sqrt()

    def members_loss(self, states: Any, embed: Tensor, batch: SequenceBatch) -> Tensor:
        """What trains the members, on states [B,T] and detached embeddings [B,T,E]; a scalar, zero without members."""
        if self.members is None:
            return embed.new_zeros((), dtype=torch.float32)
        return members_error(self.members, states.deter, embed.detach(), batch)


def members_error(members: EnsembleMLP, deter: Tensor, embed: Tensor, batch: SequenceBatch) -> Tensor:
    """Bootstrapped squared error of one-step networks, deter [B,T,D] (detached here) -> embed [B,T,E]: a scalar.

    A window's first row has no memory to predict from; rows that begin an episode or show nothing do not count.
    """
    predicted = members(deter[:, 1:].detach().flatten(0, 1)).float()
    error = ((predicted - embed[:, 1:].flatten(0, 1)) ** 2).sum(-1)
    weight = bootstrap_weights(batch.index[:, 1:].flatten(), members.members)
    weight = weight * (batch.valid & ~batch.is_first)[:, 1:].flatten()
    return (error * weight).sum() / weight.sum().clamp(min=1.0)
