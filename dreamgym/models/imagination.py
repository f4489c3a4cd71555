"""The two loops over time every core shares: observe a recorded sequence, imagine an unlived one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dreamgym.structs import TensorStruct

__all__ = ["imagine", "observe_sequence"]


def observe_sequence(
    core: Any, embed: Tensor, prev_action: Tensor, is_first: Tensor, noise: Tensor, state: Any = None
) -> tuple[Any, TensorStruct | None]:
    """Filter recorded rows: embed [B,T,E], prev_action [B,T,A], is_first [B,T], noise [B,T,L] -> states and posterior stats [B,T].

    Starts from `state`, or from the core's initial state; a window that begins in mid-episode is not marked as a first row.
    """
    state = core.initial(len(is_first)) if state is None else state
    states, stats = [], []
    # unbind, not [:, t]: the gradient of each such slice of embed would fill a [B,T,E] tensor of zeros, T times over
    rows = zip(*(tensor.unbind(1) for tensor in (prev_action, embed, is_first, noise)))
    for prev_action_t, embed_t, is_first_t, noise_t in rows:
        state, posterior = core.observe(state, prev_action_t, embed_t, is_first_t, noise_t)
        states.append(state)
        stats.append(posterior)
    stacked = None if stats[0] is None else type(stats[0]).stack(stats, 1)
    return type(states[0]).stack(states, 1), stacked


def imagine(
    model: Any, start: Any, act: Callable[[Tensor, int], Tensor], horizon: int, noise: Tensor, temperature: float = 1.0
) -> tuple[Any, Tensor]:
    """Dream `horizon` steps from start [N]: act(features [N,F], h) -> model action [N,A]; noise [N,H,L].

    Returns the states arrived at [N,H] and the actions that led there [N,H,A]. Differentiable in the actions.
    """
    states, actions = [], []
    state = start
    for h in range(horizon):
        action = act(model.features(state), h)
        state = model.step(state, action, noise[:, h], temperature)
        states.append(state)
        actions.append(action)
    return type(states[0]).stack(states, 1), torch.stack(actions, 1)
