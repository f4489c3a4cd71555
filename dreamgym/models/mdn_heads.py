"""Heads of an MDN-RNN: reward, the calibrated end, the next action if wanted, and members whose spread is the uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dreamgym.models.ensemble import spread
from dreamgym.models.mdn_rnn import MDNRNNState
from dreamgym.nn.networks import MLP, EnsembleMLP

__all__ = ["MDNHeads", "MDNHeadsConfig", "MLPReward", "SurvivalReward"]


@dataclass(frozen=True)
class SurvivalReward:
    """The same reward for every step, the last included: TakeCover's, in the environment's units per agent step."""

    per_step: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.per_step):
            raise ValueError(f"per_step is {self.per_step}; expected a finite number.")


@dataclass(frozen=True)
class MLPReward:
    """A network on the row's code and memory; the original has none. scale divides rewards before they are regressed."""

    layers: int = 2
    units: int = 200
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.layers <= 16 or not 1 <= self.units <= 8192:
            raise ValueError(f"layers is {self.layers}, units {self.units}; expected 0 to 16 layers of 1 to 8192 units.")
        if not 0.0 < self.scale < math.inf:
            raise ValueError(f"scale is {self.scale}; expected a positive number.")


@dataclass(frozen=True)
class MDNHeadsConfig:
    """terminal_weight: how many times an end counts in training (10 in the paper); continue_prob has it undone.

    members one-step networks foretell the code's mean from the memory alone; their spread is the model's uncertainty (1 switches it
    off). next_action adds a head that foretells what the agent does (the paper's iterative procedure, specs/world-models.md 8).
    """

    reward: SurvivalReward | MLPReward = field(default_factory=SurvivalReward)
    terminal_weight: float = 10.0
    members: int = 5
    member_units: int = 64
    next_action: bool = False

    def __post_init__(self) -> None:
        if not 1.0 <= self.terminal_weight <= 1e4:
            raise ValueError(f"terminal_weight is {self.terminal_weight}; expected 1 to 10000.")
        for name, high in (("members", 64), ("member_units", 8192)):
            if not 1 <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 to {high}.")


class MDNHeads(nn.Module):
    """Reads the memory h [..., D] of the row it speaks of; reward and next action read the code [..., Z] too.

    The end's logit is trained with weighted ends. Its calibrated chance is sigmoid(end_scale * logit + end_offset): at first the weight
    is undone, an offset of -ln(weight); `calibrate_end` fits both to held-out data. The paper ends where the logit is above 0, which is
    an uncalibrated chance above 1 / (1 + terminal_weight).
    """

    end_scale: Tensor
    end_offset: Tensor

    def __init__(self, config: MDNHeadsConfig, *, stoch_size: int, deter_size: int, action_size: int) -> None:
        super().__init__()
        self.config = config
        self.end = nn.Linear(deter_size, 1)
        nn.init.xavier_uniform_(self.end.weight)
        nn.init.zeros_(self.end.bias)
        self.reward_net: nn.Module | None = None
        if isinstance(config.reward, MLPReward):
            self.reward_net = MLP(stoch_size + deter_size, 1, layers=config.reward.layers, units=config.reward.units)
        self.action_net = nn.Linear(stoch_size + deter_size, action_size) if config.next_action else None
        self.members = EnsembleMLP(config.members, deter_size, stoch_size, layers=1, units=config.member_units)
        self.register_buffer("end_scale", torch.ones(()))
        self.register_buffer("end_offset", torch.tensor(-math.log(config.terminal_weight)))

    def reward(self, state: MDNRNNState, features: Tensor) -> Tensor:
        """Expected reward in the environment's units: [...]."""
        settings = self.config.reward
        if isinstance(settings, SurvivalReward):
            return torch.full_like(state.first, settings.per_step)
        assert self.reward_net is not None
        return self.reward_net(torch.cat([state.stoch, state.deter], -1)).squeeze(-1).float() * settings.scale

    def end_logit(self, deter: Tensor) -> Tensor:
        """Logit, under weighted ends, that the row with this memory [..., D] is terminal: [...]."""
        return self.end(deter.to(self.end.weight.dtype)).squeeze(-1).float()

    def continue_prob(self, state: MDNRNNState, features: Tensor) -> Tensor:
        """Calibrated chance that the episode goes on: [...]."""
        return torch.sigmoid(-(self.end_scale * self.end_logit(state.deter) + self.end_offset))

    def next_action(self, state: MDNRNNState) -> Tensor:
        """Raw prediction of the action taken at this row, [...,A]: logits of classes, or the action itself. Needs config.next_action."""
        assert self.action_net is not None
        return self.action_net(torch.cat([state.stoch, state.deter], -1)).float()

    def code(self, state: MDNRNNState, features: Tensor) -> Tensor:
        """What the decoder should paint: the code itself."""
        return state.stoch

    def disagreement(self, state: MDNRNNState) -> Tensor:
        """Spread of the one-step members, [N]: the memory holds the last code and action, so no other input is needed."""
        if self.config.members == 1:
            return torch.zeros_like(state.first)
        return spread(self.members(state.deter).float()).mean(-1).sqrt()
