"""What an MDN-RNN learns from a batch of rows: the codes' likelihood, weighted ends, and what its other heads foretell."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from dreamgym.models import mixtures
from dreamgym.models.dreamer_heads import members_error
from dreamgym.models.mdn_heads import MLPReward
from dreamgym.models.objectives import Losses
from dreamgym.structs import SequenceBatch

if TYPE_CHECKING:
    from dreamgym.models.world_model import WorldModel

__all__ = ["MixtureObjective", "lived", "mean_over"]


@dataclass(frozen=True)
class MixtureObjective:
    """Negative log likelihood of the next code, averaged over dimensions (about 1 is normal), plus the heads' losses.

    Codes are drawn anew from V's statistics in every batch, as input and as target. Weights 1 are the paper's, which has no reward head.
    Not foretold: first rows (nothing led there; the released code includes them) and rows whose observation means nothing.
    """

    continue_scale: float = 1.0
    reward_scale: float = 1.0
    next_action_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("continue_scale", "reward_scale", "next_action_scale"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number of at least 0.")

    def losses(self, model: WorldModel, batch: SequenceBatch, noise: Tensor, start: Any = None) -> Losses:
        """batch [B,T]: windows, or whole episodes padded at the end with any rows; noise [B,T,L] uniform; start as for other objectives.

        Rows after an episode's last one that begin no other are padding (see `lived`).
        """
        core, heads = model.core, model.heads
        embed = batch.embed if batch.embed is not None else model.embed(batch.obs)
        code, stats = core.code(embed, noise)
        states = core.sequence(code, batch.prev_action, batch.is_first, noise, start)
        rows = lived(batch)
        foretold = rows & ~batch.is_first
        shown = foretold & batch.valid
        log_prob = mixtures.log_prob(core.mixture(states.deter), code)
        parts = {
            "latent": mean_over(-log_prob, shown) / core.stoch_size,
            "continue": self.continue_scale * self.end_loss(heads, states.deter, batch.is_terminal, foretold),
            "members": members_error(heads.members, states.deter, stats.mean, replace(batch, valid=batch.valid & rows)),
        }
        if isinstance(heads.config.reward, MLPReward):
            error = (heads.reward(states, None) - batch.reward) / heads.config.reward.scale
            parts["reward"] = self.reward_scale * mean_over(error.square(), foretold)
        if heads.config.next_action:
            parts["action"] = self.next_action_scale * self._action(model, states[:, :-1], batch, shown)
        return Losses(torch.stack(list(parts.values())).sum(), parts, states)

    def end_loss(self, heads: Any, deter: Tensor, is_terminal: Tensor, rows: Tensor) -> Tensor:
        """Cross-entropy with ends weighted, not scaled, averaged over `rows` as in the released code; deter [..., D], the others [...]."""
        weight = deter.new_full((), heads.config.terminal_weight, dtype=torch.float32)
        target = is_terminal.float()
        loss = functional.binary_cross_entropy_with_logits(heads.end_logit(deter), target, pos_weight=weight, reduction="none")
        return mean_over(loss, rows)

    def _action(self, model: WorldModel, states: Any, batch: SequenceBatch, shown: Tensor) -> Tensor:
        """Of each row's action, which the next row brings: cross-entropy of classes, squared error of numbers."""
        said, taken = model.heads.next_action(states), batch.prev_action[:, 1:]
        if sizes := model.spec.action_sizes:
            parts = zip(said.split(list(sizes), -1), taken.split(list(sizes), -1))
            loss = torch.stack([-(logits.log_softmax(-1) * hot).sum(-1) for logits, hot in parts]).sum(0)
        else:
            loss = (said - taken).square().sum(-1)
        return mean_over(loss, shown[:, 1:])


def lived(batch: SequenceBatch) -> Tensor:
    """Which rows [B,T] belong to an episode: not those between a last row and the next first one, the padding of whole episodes."""
    time = torch.arange(batch.is_first.shape[1], device=batch.is_first.device)
    first = torch.where(batch.is_first, time, 0).cummax(1).values  # before any first row, the window's own beginning
    ended = torch.where(batch.is_last, time, -1).cummax(1).values
    ended = functional.pad(ended[:, :-1], (1, 0), value=-1)
    return ended < first


def mean_over(loss: Tensor, rows: Tensor) -> Tensor:
    """Mean of a loss over the rows that count, which may be none."""
    return torch.where(rows, loss, 0.0).sum() / rows.sum().clamp(min=1)
