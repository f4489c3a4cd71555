"""After training: what the model must know of its data to be trusted. Scaling before, calibration and start states after."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.models.ensemble import Ensemble
from dreamgym.models.heads import ArrivalHeads
from dreamgym.models.imagination import observe_sequence
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import SequenceBatch, StartBank

__all__ = ["calibrate_uncertainty", "filter_episode", "fit_ensemble_scaling", "one_step_disagreement", "start_bank"]


@torch.no_grad()
def fit_ensemble_scaling(
    model: WorldModel,
    obs: NDArray[np.float32],
    next_obs: NDArray[np.float32],
    reward: NDArray[np.float32],
    is_terminal: NDArray[np.bool_],
) -> None:
    """Learn an ensemble's scaling and the bounds of what it may predict.

    Transitions: obs, next_obs [N,D], reward, is_terminal [N].
    """
    core, heads = model.core, model.heads
    assert isinstance(core, Ensemble) and isinstance(heads, ArrivalHeads)
    model.encoder.fit(np.concatenate([obs, next_obs]))
    before, after, gained = (torch.from_numpy(array).to(model.device) for array in (obs, next_obs, reward))
    target = torch.cat([model.encoder.encode(after) - model.encoder.encode(before), gained.unsqueeze(-1)], -1)
    std = target.std(0, correction=0)
    core.target_mean.copy_(target.mean(0))
    core.target_std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))
    core.row_low.copy_(torch.cat([model.encoder.encode(model.encoder.space_low), gained.min().unsqueeze(0)]))
    core.row_high.copy_(torch.cat([model.encoder.encode(model.encoder.space_high), gained.max().unsqueeze(0)]))
    heads.terminal_share.fill_(float(is_terminal.mean()))


@torch.no_grad()
def filter_episode(model: WorldModel, batch: SequenceBatch) -> tuple[Any, Tensor]:
    """Posterior states [B,T] along recorded rows, posterior means, and the embeddings [B,T,E]."""
    embed = batch.embed if batch.embed is not None else model.embed(batch.obs)
    B, T = batch.reward.shape
    noise = torch.full((B, T, model.noise_lanes), 0.5, device=model.device)
    states, _ = observe_sequence(model.core, embed, batch.prev_action, batch.is_first, noise)
    return states, embed


@torch.no_grad()
def one_step_disagreement(model: WorldModel, batch: SequenceBatch) -> Tensor:
    """Raw disagreement of every recorded transition, one step from the posterior: flat [M]."""
    states, _ = filter_episode(model, batch)
    inside = (~batch.is_first[:, 1:] & batch.valid[:, 1:]).flatten()
    before = states[:, :-1].flatten()
    action = batch.prev_action[:, 1:].flatten(0, 1)
    noise = torch.full((len(action), model.noise_lanes), 0.5, device=model.device)
    return model.disagreement(model.step(before, action, noise))[inside]


@torch.no_grad()
def calibrate_uncertainty(model: WorldModel, held_out: list[SequenceBatch]) -> None:
    """Set uncertainty so that 0 is the median and 1 the 99.5th percentile of disagreement on held-out real transitions."""
    values = torch.cat([one_step_disagreement(model, batch) for batch in held_out]).cpu()
    median, high = np.quantile(values.numpy(), [0.5, 0.995])
    model.uncertainty_median.fill_(float(median))
    model.uncertainty_scale.fill_(max(float(high - median), 1e-8))


@torch.no_grad()
def start_bank(model: WorldModel, episodes: list[SequenceBatch], *, size: int, seed: int) -> StartBank:
    """Real states to start dreams from: every episode's first row (up to a quarter of size), the rest drawn from living rows."""
    states, first, living = [], [], []
    for batch in episodes:
        filtered, _ = filter_episode(model, batch)
        states.append(filtered.flatten())
        first.append(batch.is_first.flatten())
        living.append((~batch.is_first & ~batch.is_last & batch.valid).flatten())
    everything = type(states[0]).cat(states)
    is_first, alive = torch.cat(first), torch.cat(living)
    rng = np.random.default_rng([seed, 7])
    firsts = torch.nonzero(is_first).squeeze(-1).cpu().numpy()
    others = torch.nonzero(alive).squeeze(-1).cpu().numpy()
    firsts = rng.permutation(firsts)[: max(1, size // 4)]
    others = rng.permutation(others)[: max(0, size - len(firsts))]
    rows = torch.from_numpy(np.concatenate([firsts, others])).to(is_first.device)
    return StartBank(state=everything[rows].clone(), is_first=is_first[rows].clone())
