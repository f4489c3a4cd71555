"""Where dreams begin: a bank of real states, a state that the caller names, or real frames that the caller hands over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from dreamgym.structs import ObsTensors, TensorStruct, map_obs

__all__ = ["Starts"]


class Starts:
    """Start states of a model, all with leading [B]. Without a bank, dreams start from model.initial.

    starts "first" draws true episode starts, "any" all rows of the bank. Raises ValueError for a bank without what is asked.
    """

    def __init__(self, model: Any, starts: str, num_slots: int, device: torch.device) -> None:
        self._model = model
        self._num_slots = num_slots
        self._device = device
        bank = getattr(model, "initial_states", None)
        self._bank: Any = None if bank is None else bank.state.to(device)
        if bank is None:
            return
        rows = bank.is_first.nonzero().squeeze(1) if starts == "first" else torch.arange(len(bank.is_first))
        if len(rows) == 0:
            raise ValueError(
                f"starts is {starts!r}, but none of the {len(bank.is_first)} start states of this model is "
                + ("marked is_first; pass starts='any'." if len(bank.is_first) else "there; the bank is empty (None means no bank).")
            )
        self._bank_size = len(bank.is_first)
        self._rows = rows.to(device)

    def draw(self, chance: Tensor) -> Any:
        """States [B] chosen by uniforms [B] in (0,1)."""
        if self._bank is None:
            return self._model.initial(len(chance)).to(self._device)
        choice = (chance * len(self._rows)).long().clamp_(max=len(self._rows) - 1)
        return self._bank[self._rows[choice]]

    def named(self, start: Any) -> Any:
        """States [B] from a bank index, one index per slot, or a state with leading [1] or [B].

        Raises ValueError for an index outside the bank or a wrong batch size, TypeError for anything else.
        """
        if isinstance(start, TensorStruct):
            return self._spread(start)
        if isinstance(start, Tensor):
            start = start.cpu().numpy()
        index = np.asarray(start)
        if index.dtype.kind not in "iu" or index.ndim > 1:
            raise TypeError(f"initial_state is a {type(start).__name__}; expected an index into the bank of starts, or a model state.")
        if self._bank is None:
            raise ValueError("initial_state is an index, but this model has no bank of start states; pass a model state.")
        if index.size == 0 or index.min() < 0 or index.max() >= self._bank_size:
            raise ValueError(f"initial_state is {start}; expected 0 to {self._bank_size - 1}, the rows of this model's bank.")
        return self._spread(self._bank[torch.from_numpy(np.atleast_1d(index).astype(np.int64)).to(self._device)])

    def observed(self, context: Any) -> Any:
        """States [B] after real frames: {"obs": [T,...], "action": [T-1,...]}, env actions, or with leading [B] for each slot.

        obs are frames as make_env(spec.env_id, preprocess=spec.preprocess) gives them, of a Dict observation a dict of its parts.
        With one frame "action" may be left out. The belief is the posterior mean (noise 0.5). Raises ValueError for wrong keys or
        shapes, or a model that cannot observe.
        """
        if not hasattr(self._model, "observe"):
            raise ValueError("context needs model.observe, which this model lacks.")
        spec = self._model.spec
        if not isinstance(context, Mapping) or not {"obs"} <= set(context) <= {"obs", "action"}:
            kinds = _expected("T", spec.observation_space), _expected("T-1", spec.action_space)
            raise ValueError(f"context must be a dict with 'obs' {kinds[0]} and, unless T is 1, 'action' {kinds[1]}.")
        obs = self._observations(context["obs"], spec.observation_space)
        batch, length = (next(iter(obs.values())) if isinstance(obs, dict) else obs).shape[:2]
        if length == 0:
            raise ValueError("context has no frames; expected at least one.")
        action = self._frames(context.get("action", ()), spec.action_space, "action", "T-1", default_length=0)
        if action.shape[1] != length - 1 or (length > 1 and len(action) != batch):
            raise ValueError(f"context has {length} frames and {action.shape[1]} actions; expected {length - 1} actions.")
        state = self._model.initial(batch).to(self._device)
        noise = torch.full((batch, self._model.noise_lanes), 0.5, device=self._device)
        prev_action = torch.zeros(batch, spec.action_size, device=self._device)
        for t in range(length):
            if t > 0:
                prev_action = spec.to_model_action(action[:, t - 1])
            is_first = torch.full((batch,), t == 0, device=self._device)
            state = self._model.observe(state, prev_action, map_obs(lambda frames: frames[:, t], obs), is_first, noise)  # noqa: B023
        return self._spread(state)

    def _observations(self, values: Any, space: Any) -> ObsTensors:
        """Frames [1 or B, T, ...], of a Dict in each part."""
        if not isinstance(space, spaces.Dict):
            return self._frames(values, space, "obs", "T")
        if not isinstance(values, Mapping) or set(values) != set(space):
            found = f"has {sorted(values)}" if isinstance(values, Mapping) else f"is a {type(values).__name__}"
            raise ValueError(f"context obs {found}; expected a dict with {sorted(space)}, each [T, ...].")
        frames = {name: self._frames(values[name], space[name], f"obs[{name!r}]", "T") for name in sorted(space)}
        leads = {name: list(tensor.shape[:2]) for name, tensor in frames.items()}
        if any(lead != next(iter(leads.values())) for lead in leads.values()):
            raise ValueError(f"context obs has parts with {leads} rows and frames; expected equally many.")
        return frames

    def _frames(self, values: Any, space: Any, name: str, rows: str, default_length: int | None = None) -> Tensor:
        """As [1 or B, T, ...] on the device, checked against the space."""
        shape = tuple(space.shape or ())
        array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
        if array.size == 0 and default_length is not None:
            array = np.zeros((default_length, *shape), space.dtype)
        lead = array.shape[: array.ndim - len(shape)]
        if array.dtype.kind not in "iuf" or array.shape[len(lead) :] != shape or len(lead) not in (1, 2):
            raise ValueError(
                f"context {name} has shape {list(array.shape)} and dtype {array.dtype}; expected {_expected(rows, space)}, as "
                f"make_env(spec.env_id, preprocess=spec.preprocess) {'takes' if name == 'action' else 'gives'} them (spec is the model's)."
            )
        if not np.isfinite(array).all():
            raise ValueError(f"context {name} holds values that are not finite.")
        dtype = np.float32 if np.issubdtype(space.dtype, np.floating) else space.dtype
        tensor = torch.from_numpy(array.astype(dtype)).to(self._device)
        return tensor.unsqueeze(0) if len(lead) == 1 else tensor

    def _spread(self, state: Any) -> Any:
        """The state in every slot, where it holds one row; checked otherwise."""
        state = state.to(self._device).clone()
        for name, tensor in state.items():
            if tensor.shape[0] not in (1, self._num_slots):
                raise ValueError(f"{name} of the initial state has {tensor.shape[0]} rows; expected 1 or {self._num_slots}.")
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name} of the initial state holds values that are not finite.")
        return state.map(lambda tensor: tensor.expand(self._num_slots, *tensor.shape[1:]).contiguous())


def _expected(rows: str, space: Any) -> str:
    """Such as "[T, 64, 64, 3] uint8"."""
    return f"[{', '.join([rows, *map(str, space.shape)])}] {space.dtype}"
