"""Dreams that pay for the unknown: what an exploring controller is evolved in, so that the next lives show M what it does not know."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from dreamgym.models.world_model import WorldModel

__all__ = ["CuriousHeads", "curious"]

_CAP = 3.0  # in calibrated units, as for the guard's charge: one wild estimate must not be worth a whole episode


class CuriousHeads(nn.Module):
    """A model's heads whose reward holds `curiosity` per calibrated unit of uncertainty, up to three of them; the rest is as it was."""

    def __init__(self, model: WorldModel, curiosity: float) -> None:
        super().__init__()
        self.heads, self.curiosity = model.heads, curiosity
        self.register_buffer("median", model.uncertainty_median)
        self.register_buffer("scale", model.uncertainty_scale)

    def reward(self, state: Any, features: Tensor) -> Tensor:
        """Expected reward and bonus, in the environment's units: [...]."""
        uncertainty = (self.heads.disagreement(state) - self.median) / self.scale
        return self.heads.reward(state, features) + self.curiosity * uncertainty.clamp(0.0, _CAP)

    def continue_prob(self, state: Any, features: Tensor) -> Tensor:
        """As of the heads."""
        return self.heads.continue_prob(state, features)

    def disagreement(self, state: Any) -> Tensor:
        """As of the heads."""
        return self.heads.disagreement(state)

    def code(self, state: Any, features: Tensor) -> Tensor:
        """As of the heads."""
        return self.heads.code(state, features)


def curious(model: WorldModel, curiosity: float) -> WorldModel:
    """This model with a reward for being where its members disagree: a view that shares all tensors. Calibrate its uncertainty before.

    The paper pays M's own loss with its sign flipped (section "Iterative Training Procedure"). That takes real episodes for every
    candidate, and a loss that noise alone keeps high pays for ever. Members that learned from different resamples of what was lived
    disagree where little was lived and agree on noise, and can be asked in a dream. Sources: Pathak et al. 2019, arXiv 1906.04161;
    Sekar et al. 2020, arXiv 2005.05960.
    """
    view = copy.copy(model)
    view._modules = {**model._modules, "heads": CuriousHeads(model, curiosity)}
    view.source = None
    return view
