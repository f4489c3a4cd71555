"""Checks actions before a dream moves: one NaN in a recurrent state would poison the rest of the episode.

Finite actions outside a Box are clipped, as Pendulum and MuJoCo do; everything else wrong raises gymnasium's InvalidAction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import InvalidAction
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.structs import Spec

__all__ = ["ActionReader"]


class ActionReader:
    """Turns env actions (NumPy, torch, lists, numbers) into model actions [B,A] on the device; never changes its input."""

    def __init__(self, spec: Spec, device: torch.device) -> None:
        self.space = spec.action_space
        self.device = device
        self._spec = spec
        self._shape: tuple[int, ...] = tuple(self.space.shape or ())
        spec.action_size  # noqa: B018 - raises TypeError for spaces that no model can take
        self._classes = spec.is_discrete
        if isinstance(self.space, spaces.Discrete):
            self._start, self._count = int(self.space.start), int(self.space.n)
            classes = torch.arange(self._start, self._start + self._count, device=device)
            self._one_hot = spec.to_model_action(classes).unsqueeze(1)  # [n,1,A]: a row is a batch of one
        if isinstance(self.space, (spaces.Discrete, spaces.MultiDiscrete)):
            count = self.space.n if isinstance(self.space, spaces.Discrete) else self.space.nvec
            self._low = np.asarray(self.space.start, np.int64)
            self._high = self._low + np.asarray(count, np.int64) - 1
            self._bounds = tuple(torch.as_tensor(bound, device=device) for bound in (self._low, self._high))

    def one(self, action: Any) -> Tensor:
        """Model action [1,A] of a single env action. Raises InvalidAction."""
        if isinstance(self.space, spaces.Discrete):
            return self._one_hot[self._class(action) - self._start]
        array = self._numbers(action, self._shape)
        if self._invalid(array).any():
            raise self._error(action, "a class out of range" if self._classes else "a value that is not finite")
        if self._classes:
            return self._spec.to_model_action(torch.from_numpy(array.astype(np.int64)).to(self.device).unsqueeze(0))
        return self._spec.to_model_action(torch.from_numpy(self._clipped(array)).to(self.device).unsqueeze(0))

    def many(self, actions: Any, num_envs: int, ignored: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Model actions [B,A] of a batch, and flags [B] on the device that tell afterwards which were invalid.

        Rows in `ignored` [B] may hold anything. Values on the host are checked at once (InvalidAction, flags None). Values in
        another device's memory are not, for that would wait for the device: they are made valid, and the flags returned.
        """
        if isinstance(actions, Tensor) and actions.device.type != "cpu":
            return self._from_device(actions, num_envs, ignored)
        array = self._numbers(actions, (num_envs, *self._shape))
        bad = self._invalid(array)
        if bad.any():
            rows = bad if bad.ndim == 1 else bad.any(axis=tuple(range(1, bad.ndim)))
            rows = rows if ignored is None else rows & ~ignored.cpu().numpy()
            if rows.any():
                raise self._error(array[rows][0], f"invalid values in row {int(rows.argmax())}")
            array = np.where(bad, self._low if self._classes else 0, array)
        array = array.astype(np.int64, copy=False) if self._classes else self._clipped(array)
        return self._spec.to_model_action(torch.from_numpy(array).to(self.device)), None

    def _from_device(self, actions: Tensor, num_envs: int, ignored: Tensor | None) -> tuple[Tensor, Tensor]:
        expected = (num_envs, *self._shape)
        if tuple(actions.shape) != expected or actions.dtype == torch.bool or (self._classes and actions.is_floating_point()):
            raise self._error(f"a {actions.dtype} tensor of shape {tuple(actions.shape)}", f"not a batch of shape {expected}")
        actions = actions.to(self.device)
        if self._classes:
            valid = torch.minimum(torch.maximum(actions, self._bounds[0]), self._bounds[1])
            bad = (valid != actions).reshape(num_envs, -1).any(1)
        else:
            valid = torch.nan_to_num(actions, posinf=0.0, neginf=0.0)
            bad = ~torch.isfinite(actions).flatten(1).all(1)
        return self._spec.to_model_action(valid), bad if ignored is None else bad & ~ignored.to(bad.device)

    def _invalid(self, array: NDArray[Any]) -> NDArray[np.bool_]:
        return (array < self._low) | (array > self._high) if self._classes else ~np.isfinite(array)

    def _class(self, action: Any) -> int:
        if type(action) is not int:
            array = action.detach().cpu().numpy() if isinstance(action, Tensor) else np.asarray(action)
            if array.shape != () or array.dtype.kind not in "iu":
                raise self._error(action, f"{array.dtype} of shape {array.shape}")
            action = int(array)
        if not self._start <= action < self._start + self._count:
            raise self._error(action, "a class out of range")
        return action

    def _numbers(self, action: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """A copy: writable (torch asks for that), and the caller's array stays as it is."""
        try:
            array = action.detach().cpu().numpy().copy() if isinstance(action, Tensor) else np.array(action)
        except (TypeError, ValueError) as error:
            raise self._error(action, str(error)) from error
        if array.shape != shape:
            raise self._error(action, f"shape {array.shape} instead of {shape}")
        if array.dtype.kind not in ("iu" if self._classes else "fiu"):
            raise self._error(action, f"dtype {array.dtype}")
        return array

    def _clipped(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """As float32. Other types are clipped first: a float64 may be finite and yet overflow float32."""
        if array.dtype == np.float32:
            return array
        assert isinstance(self.space, spaces.Box)
        return np.clip(array.astype(np.float64), self.space.low, self.space.high).astype(np.float32)

    def _error(self, action: Any, problem: str) -> InvalidAction:
        return InvalidAction(f"expected an action in {self.space}, received {_short(action)}: {problem}. The dream has not moved.")


def _short(action: Any) -> str:
    text = action if isinstance(action, str) else repr(action)
    return text if len(text) <= 80 else text[:77] + "..."
