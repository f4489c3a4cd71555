"""Latent overshooting: hold predictions of several open-loop steps against the posterior. Hafner et al. 2019 (PlaNet), section 4."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dreamgym.models.kl import KLConfig, floored_mean
from dreamgym.noise import uniform
from dreamgym.structs import SequenceBatch, TensorStruct

__all__ = ["open_loop_priors", "overshooting_kl", "overshooting_noise"]


def overshooting_kl(core: Any, states: Any, posterior: Any, batch: SequenceBatch, noise: Tensor, settings: KLConfig) -> Tensor:
    """Mean over d = 2..D of the floored mean of KL(sg posterior of row t || prior of row t, d steps after the posterior sample at t - d).

    states and posterior [B,T] of the filtered batch, noise [B,T,L] what they were filtered with. Averages go over the pairs (t, d)
    inside the window and inside one episode, then over the distances that have any. Targets get no gradient, the states the
    predictions start from do, as in the official code. Source: specs/planet.md 3.2; weight D/(D-1) for d > 1 in the equation's terms.
    """
    targets = posterior.detach()
    means, present = [], []
    for distance, prior, inside in open_loop_priors(core, states, batch.prev_action, batch.is_first, noise, settings.overshooting_distance):
        if distance > 1:  # one step is the ordinary KL
            means.append(floored_mean(core.latent.kl(targets[:, distance:], prior), settings, inside))
            present.append(inside.any())
    if not means:
        return noise.new_zeros(())
    mask = torch.stack(present)
    return torch.where(mask, torch.stack(means), 0.0).sum() / mask.sum().clamp(min=1)


def open_loop_priors(
    core: Any, states: Any, prev_action: Tensor, is_first: Tensor, noise: Tensor, distance: int
) -> Iterator[tuple[int, Any, Tensor]]:
    """Roll every state [B,T] open loop on the recorded actions: yields d, prior stats [B,T-d] of rows d.., and whether they count.

    A pair counts if no episode begins between its start and its target. All starts of a distance step as one batch.
    """
    T = is_first.shape[1]
    inside = torch.ones_like(is_first)
    state = states
    for d in range(1, min(distance, T - 1) + 1):
        rows = T - d
        inside = inside[:, :rows] & ~is_first[:, d:]
        drawn = overshooting_noise(noise, d).flatten(0, 1)
        state = core.step(state[:, :rows].flatten(), prev_action[:, d:].flatten(0, 1), drawn)
        prior = core.prior_stats(state.deter, core.prior_member(drawn))
        state, prior = _unflatten(state, rows), _unflatten(prior, rows)
        yield d, prior, inside


def overshooting_noise(noise: Tensor, distance: int) -> Tensor:
    """Fresh uniforms [B,T-d,L] for the step that ends d = `distance` rows after each start, made from the batch's noise [B,T,L].

    The bits of a row's first and last lane are the seed, its place in the batch the episode and the distance the step of the
    counter-based generator, so the objective's signature needs no second noise, and no draw is shared with the posterior's samples.
    A lane of exactly 0.5 stays 0.5: it asks for the mean.
    """
    B, T, lanes = noise.shape
    ends = torch.stack([noise[..., 0], noise[..., -1]], -1).float().view(torch.int32).to(torch.int64)
    seed = (ends[..., 0] << 32).bitwise_xor_(ends[..., 1])[:, : T - distance]
    place = torch.arange(B * T, device=noise.device).view(B, T)[:, : T - distance]
    drawn = uniform(seed, place, torch.full_like(seed, distance), lanes)
    return torch.where(noise[:, : T - distance] == 0.5, 0.5, drawn)


def _unflatten(struct: TensorStruct, rows: int) -> Any:
    return struct.map(lambda tensor: tensor.unflatten(0, (-1, rows)))
