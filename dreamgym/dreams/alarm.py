"""Raises late rather than waiting: carries error flags from a device to the host without stopping the device each step."""

from __future__ import annotations

import torch
from gymnasium.error import InvalidAction, ResetNeeded
from torch import Tensor

from dreamgym.errors import NonFiniteDreamError

__all__ = ["Alarm"]


class Alarm:
    """Flags of one step, looked at when the next begins: by then they have arrived, and looking costs nothing."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event() if device.type == "cuda" else None
        self._flags = torch.zeros(3, dtype=torch.bool, pin_memory=self._event is not None)

    def set(self, *, not_finite: Tensor, invalid_action: Tensor | None, stepped_past_end: Tensor | None) -> None:
        """Send the flags, each a bool tensor of any shape, on their way."""
        absent = torch.zeros((), dtype=torch.bool, device=not_finite.device)
        flags = [absent if flag is None else flag.any() for flag in (not_finite, invalid_action, stepped_past_end)]
        self._flags.copy_(torch.stack(flags), non_blocking=True)
        if self._event is not None:
            self._event.record()

    def check(self) -> None:
        """Raise what the step before gave cause for, once: NonFiniteDreamError, InvalidAction or ResetNeeded."""
        if self._event is not None:
            self._event.synchronize()
        not_finite, invalid_action, stepped_past_end = self._flags.tolist()
        self._flags.zero_()
        if not_finite:
            raise NonFiniteDreamError("the model produced NaN or infinity in the step before (returned as 0); call reset().")
        if invalid_action:
            raise InvalidAction("the actions of the step before held values outside the action space; valid ones were dreamt instead.")
        if stepped_past_end:
            raise ResetNeeded("the step before moved dreams that had ended; with autoreset disabled, reset(options={'reset_mask': ...}).")
