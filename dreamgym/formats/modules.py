"""Modules that a stranger's config describes: laid out on the meta device, counted, and only then made of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from dreamgym.errors import InvalidModelError
from dreamgym.formats.strict_json import escape

__all__ = ["build", "layout"]

_MAX_PARAMETERS = 500_000_000

Module = TypeVar("Module", bound=nn.Module)


def layout(make: Callable[[], Module], where: str, *, kind: str, misfit: str) -> Module:
    """The module that make() would make, without memory for its numbers. kind: model or agent; misfit: what build says.

    Raises InvalidModelError where it cannot be made, or would have more than 500 million parameters.
    """
    found = build(make, where, device="meta", misfit=misfit)
    parameters = sum(tensor.numel() for tensor in found.state_dict().values())
    if parameters > _MAX_PARAMETERS:
        raise InvalidModelError(f"{where}: describes {kind} of {parameters} parameters; the limit is {_MAX_PARAMETERS}")
    return found


def build(make: Callable[[], Module], where: str, *, device: str = "cpu", misfit: str) -> Module:
    """make(), its initial weights to be thrown away: the caller's generators stay as they were.

    The parts of a config check their ranges; what slips through (a vector encoder for images) shows here, as an InvalidModelError that
    begins with `misfit`.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return make()
    except (TypeError, ValueError, RuntimeError, AssertionError, ArithmeticError) as error:
        raise InvalidModelError(f"{where}: {misfit} ({escape(str(error))})") from error
