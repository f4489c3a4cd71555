"""What an MDN-RNN learns from its own dreams: begun where an episode was, led by its actions, they must foretell what then came.

Trained one step ahead only, M forgets in a few dreamt steps what it had just seen: in Doom TakeCover its fireballs faded, and after
16 steps it foretold 0.12 ends where 0.19 came (docs/log.md). This is PlaNet's latent overshooting for a core that samples codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dreamgym.models import mixtures
from dreamgym.models.mdn_rnn import MDNRNNState
from dreamgym.models.mixture_objective import MixtureObjective, lived, mean_over
from dreamgym.structs import SequenceBatch

if TYPE_CHECKING:
    from dreamgym.models.world_model import WorldModel

__all__ = ["MixtureOvershooting"]


@dataclass(frozen=True)
class MixtureOvershooting:
    """`starts` dreams of `steps` steps in every update; `scale` weighs their losses beside those of one step."""

    steps: int = 16
    starts: int = 320
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name, high in (("steps", 1000), ("starts", 100_000)):
            if not 1 <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 to {high}.")
        if not 0.0 < self.scale < math.inf:
            raise ValueError(f"scale is {self.scale}; expected a positive number.")

    def losses(self, model: WorldModel, batch: SequenceBatch, states: MDNRNNState, noise: Tensor) -> dict[str, Tensor]:
        """Scaled losses of codes (nats per dimension) and of ends, averaged over all dreamt steps of rows that were lived.

        states [B,T] are those of the objective, with their gradient; noise [B,T,L] that which made them. Codes that are dreamt carry no
        gradient, the memory does. Dreams stop where their episode did; there is none where no row has one after it.
        """
        rows = lived(batch)
        row, time = self._starts(rows & ~batch.is_last, noise)
        state = states[row, time]
        last, alive = rows.shape[1] - 1, rows[row, time]
        noise = noise.roll((1, 1), (0, 1))  # what drew a row's own code must not draw the dreamt one beside it
        memories, targets, ends, counted, shown = [], [], [], [], []
        for step in range(1, self.steps + 1):
            now = (time + step).clamp(max=last)
            alive = alive & (time + step <= last) & rows[row, now]
            state = _dream(model, state, batch.prev_action[row, now], noise[row, now])
            memories.append(state.deter)
            targets.append(states.stoch[row, now].detach())
            ends.append(batch.is_terminal[row, now])
            counted.append(alive)
            shown.append(alive & batch.valid[row, now])
            alive = alive & ~batch.is_last[row, now]
        deter, lives = torch.stack(memories), torch.stack(counted)
        objective = model.config.objective
        assert isinstance(objective, MixtureObjective)
        codes = mean_over(-mixtures.log_prob(model.core.mixture(deter), torch.stack(targets)), torch.stack(shown)) / model.core.stoch_size
        end = objective.continue_scale * objective.end_loss(model.heads, deter, torch.stack(ends), lives)
        return {"overshot_latent": self.scale * codes, "overshot_continue": self.scale * end}

    def _starts(self, begins: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and times [N] of those living rows [B,T] whose first lane is lowest: chosen at random, and the same for the same noise."""
        lottery = torch.where(begins, noise[..., 0], torch.inf).flatten()
        chosen = lottery.topk(min(self.starts, lottery.numel()), largest=False, sorted=False).indices
        chosen = chosen[torch.isfinite(lottery[chosen])]
        return chosen // begins.shape[1], chosen % begins.shape[1]


def _dream(model: WorldModel, state: MDNRNNState, action: Tensor, noise: Tensor) -> MDNRNNState:
    """A step whose code is a given thing to what comes after it."""
    core: Any = model.core
    h, c = core.recur(state, action, noise)
    with torch.no_grad():
        code = mixtures.sample(core.mixture(h), noise[..., 1:])
    return MDNRNNState(h, code, c, torch.zeros_like(state.first))
