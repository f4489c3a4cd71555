"""Heads: what a model says of the state arrived at. Latent cores need networks for all of it, an ensemble only for the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamgym.models.ensemble import EnsembleState, spread
from dreamgym.models.rssm import RSSMState
from dreamgym.nn.networks import MLP, EnsembleMLP

__all__ = ["ArrivalHeads", "ArrivalHeadsConfig", "LatentHeads", "LatentHeadsConfig"]


@dataclass(frozen=True)
class LatentHeadsConfig:
    """Heads on an RSSM's features. reward_scale divides rewards before they are regressed; reward_clip bounds them first.

    members one-step heads predict the next code from the memory alone; their spread is the model's uncertainty (1 switches it off).
    """

    layers: int = 2
    units: int = 200
    members: int = 5
    member_units: int = 64
    reward_scale: float = 1.0
    reward_clip: float | None = None

    def __post_init__(self) -> None:
        for name, low, high in (("layers", 1, 16), ("units", 1, 8192), ("members", 1, 64), ("member_units", 1, 8192)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {low} to {high}.")
        if not self.reward_scale > 0 or (self.reward_clip is not None and not self.reward_clip > 0):
            raise ValueError(f"reward_scale is {self.reward_scale}, reward_clip {self.reward_clip}; expected positive numbers.")


class LatentHeads(nn.Module):
    """Reward, continue and code networks on features [..., F]; an ensemble of one-step code predictors on deter [..., D]."""

    def __init__(self, config: LatentHeadsConfig, *, feature_size: int, deter: int, embed_size: int) -> None:
        super().__init__()
        self.config = config
        self.reward_net = MLP(feature_size, 1, layers=config.layers, units=config.units)
        self.continue_net = MLP(feature_size, 1, layers=config.layers, units=config.units)
        self.code_net = MLP(feature_size, embed_size, layers=config.layers, units=config.units)
        self.members = EnsembleMLP(config.members, deter, embed_size, layers=1, units=config.member_units)

    def reward(self, state: RSSMState, features: Tensor) -> Tensor:
        """Expected reward in the environment's units: [...]."""
        return self.reward_net(features).squeeze(-1).float() * self.config.reward_scale

    def continue_logit(self, state: RSSMState, features: Tensor) -> Tensor:
        """Logit that the episode goes on: [...]."""
        return self.continue_net(features).squeeze(-1).float()

    def continue_prob(self, state: RSSMState, features: Tensor) -> Tensor:
        """Chance that the episode goes on: [...]."""
        return torch.sigmoid(self.continue_logit(state, features))

    def code(self, state: RSSMState, features: Tensor) -> Tensor:
        """What the decoder should paint: embeddings [...,E]."""
        return self.code_net(features).float()

    def disagreement(self, state: RSSMState) -> Tensor:
        """Spread of the one-step heads, [N]: the memory alone holds the last state and action, so no other input is needed."""
        if self.config.members == 1:
            return state.deter.new_zeros(state.deter.shape[:-1])
        return spread(self.members(state.deter).float()).mean(-1).sqrt()


@dataclass(frozen=True)
class ArrivalHeadsConfig:
    """The continue network of an ensemble."""

    layers: int = 2
    units: int = 64

    def __post_init__(self) -> None:
        for name, low, high in (("layers", 1, 16), ("units", 1, 8192)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {low} to {high}.")


class ArrivalHeads(nn.Module):
    """Heads of an ensemble: the transition already brought reward and disagreement; the end is read off the predicted observation."""

    terminal_share: Tensor

    def __init__(self, config: ArrivalHeadsConfig, *, obs_size: int) -> None:
        super().__init__()
        self.continue_net = MLP(obs_size, 1, layers=config.layers, units=config.units, activation="relu")
        self.register_buffer("terminal_share", torch.zeros(()))  # of the data's rows; balances the classes

    def reward(self, state: EnsembleState, features: Tensor) -> Tensor:
        """Sampled with the transition: [...]."""
        return state.reward

    def continue_logit(self, state: EnsembleState, features: Tensor) -> Tensor:
        """Logit, under balanced classes, that the episode goes on: [...]."""
        return self.continue_net(features).squeeze(-1).float()

    def continue_prob(self, state: EnsembleState, features: Tensor) -> Tensor:
        """Chance, under balanced classes, that the episode goes on: [...]."""
        return torch.sigmoid(self.continue_logit(state, features))

    def code(self, state: EnsembleState, features: Tensor) -> Tensor:
        """The observation is the state."""
        return state.obs

    def disagreement(self, state: EnsembleState) -> Tensor:
        """Measured by the step that led here."""
        return state.disagreement
