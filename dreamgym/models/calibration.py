"""After training: what the model must know of its data to be trusted. Scaling before, calibration and start states after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dreamgym.models.ensemble import Ensemble
from dreamgym.models.heads import ArrivalHeads
from dreamgym.models.imagination import observe_sequence
from dreamgym.models.mdn_heads import MDNHeads
from dreamgym.models.mdn_rnn import MDNRNN
from dreamgym.models.mixture_objective import lived
from dreamgym.models.world_model import WorldModel
from dreamgym.noise import uniform
from dreamgym.structs import SequenceBatch, StartBank

__all__ = [
    "EndCalibration",
    "calibrate_end",
    "calibrate_uncertainty",
    "filter_episode",
    "fit_ensemble_scaling",
    "one_step_disagreement",
    "start_bank",
]


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
def filter_episode(model: WorldModel, batch: SequenceBatch, *, seed: int | None = None) -> tuple[Any, Tensor]:
    """Posterior states [B,T] along recorded rows and the embeddings [B,T,E]; posterior means, or with a seed samples.

    Which samples depends on the seed and on each row's index alone.
    """
    embed = batch.embed if batch.embed is not None else model.embed(batch.obs)
    B, T = batch.reward.shape
    if seed is None:
        noise = torch.full((B, T, model.noise_lanes), 0.5, device=model.device)
    else:
        noise = uniform(torch.full_like(batch.index, seed), batch.index, torch.zeros_like(batch.index), model.noise_lanes)
    if isinstance(model.core, MDNRNN):
        code, _ = model.core.code(embed, noise)
        return model.core.sequence(code, batch.prev_action, batch.is_first), embed
    states, _ = observe_sequence(model.core, embed, batch.prev_action, batch.is_first, noise)
    return states, embed


@torch.no_grad()
def one_step_disagreement(model: WorldModel, batch: SequenceBatch) -> Tensor:
    """Raw disagreement of every recorded transition, one step from the posterior: flat [M]."""
    states, _ = filter_episode(model, batch)
    inside = (~batch.is_first & batch.valid & lived(batch))[:, 1:].flatten()
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


@dataclass(frozen=True)
class EndCalibration:
    """What `calibrate_end` found: chance of an end = sigmoid(scale * logit + offset), and what that did on the rows it saw."""

    scale: float
    offset: float
    rows: int
    ends: int
    log_loss_before: float  # nats per row
    log_loss: float


@torch.no_grad()
def calibrate_end(model: WorldModel, held_out: list[SequenceBatch], *, seed: int = 0) -> EndCalibration:
    """Fit an MDN-RNN's chance of an end to held-out rows by Platt scaling, so that continue_prob is a chance again.

    Codes are sampled, as in dreams. A model whose held-out rows hold no end, or nothing else, keeps its calibration; one whose logit says
    nothing or the opposite gets the base rate. Raises ValueError for a model without such a head. Source: Platt 1999; Newton's method.
    """
    heads = model.heads
    if not isinstance(heads, MDNHeads):
        raise ValueError(f"the model's {type(heads).__name__} have no end to calibrate; an MDN-RNN's have.")
    logits, ends = [], []
    for batch in held_out:
        states, _ = filter_episode(model, batch, seed=seed)
        rows = lived(batch) & ~batch.is_first
        logits.append(heads.end_logit(states.deter)[rows].double().cpu())
        ends.append(batch.is_terminal[rows].double().cpu())
    logit, end = torch.cat(logits), torch.cat(ends)
    old = torch.stack([heads.end_scale, heads.end_offset]).double().cpu()
    fitted = _platt(logit, end) if 0.0 < float(end.sum()) < len(end) else old
    heads.end_scale.fill_(float(fitted[0]))
    heads.end_offset.fill_(float(fitted[1]))
    before, after = (float(functional.binary_cross_entropy_with_logits(logit * s + o, end)) for s, o in (old, fitted))
    return EndCalibration(float(fitted[0]), float(fitted[1]), len(end), int(end.sum()), before, after)


def _platt(logit: Tensor, end: Tensor) -> Tensor:
    """Scale and offset [2] of the likeliest sigmoid(scale * logit + offset), kept from infinity by a prior of one row's weight."""
    share = end.mean()
    base = torch.log(share / (1.0 - share))
    columns = torch.stack([logit, torch.ones_like(logit)], -1)
    fitted = torch.stack([torch.zeros_like(base), base])
    for _ in range(100):
        chance = torch.sigmoid(columns @ fitted)
        slope = columns.t() @ (chance - end) + torch.stack([fitted[0] - 1.0, torch.zeros_like(base)])
        curve = columns.t() @ (columns * (chance * (1.0 - chance)).unsqueeze(-1)) + torch.diag(columns.new_tensor([1.0, 1e-9]))
        step = torch.linalg.solve(curve, slope)
        fitted = fitted - step * min(1.0, 2.0 / float(step.abs().max().clamp(min=1e-12)))
        if float(step.abs().max()) < 1e-10:
            break
    return fitted if float(fitted[0]) > 0.0 else torch.stack([torch.zeros_like(base), base])


@torch.no_grad()
def start_bank(model: WorldModel, episodes: list[SequenceBatch], *, size: int, seed: int) -> StartBank:
    """Real states to start dreams from: every episode's first row (up to a quarter of size), the rest drawn from living rows.

    Posterior means, or samples where model.defaults.belief says so.
    """
    states, first, living = [], [], []
    for batch in episodes:
        filtered, _ = filter_episode(model, batch, seed=seed if model.defaults.belief == "sample" else None)
        states.append(filtered.flatten())
        first.append(batch.is_first.flatten())
        living.append((~batch.is_first & ~batch.is_last & batch.valid & lived(batch)).flatten())
    everything = type(states[0]).cat(states)
    is_first, alive = torch.cat(first), torch.cat(living)
    rng = np.random.default_rng([seed, 7])
    firsts = torch.nonzero(is_first).squeeze(-1).cpu().numpy()
    others = torch.nonzero(alive).squeeze(-1).cpu().numpy()
    firsts = rng.permutation(firsts)[: max(1, size // 4)]
    others = rng.permutation(others)[: max(0, size - len(firsts))]
    rows = torch.from_numpy(np.concatenate([firsts, others])).to(is_first.device)
    return StartBank(state=everything[rows].clone(), is_first=is_first[rows].clone())
