"""Checkpoints on disk: written whole or not at all, read without running code, and where a run turns back to from NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamgym.errors import NonFiniteLossError

__all__ = ["check_finite", "read_checkpoint", "write_checkpoint"]


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Replace the file at once, so that a kill in mid-write leaves the last one."""
    temporary = path.with_suffix(".tmp")
    torch.save(content, temporary)
    temporary.replace(path)


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What `write_checkpoint` was given. Raises ValueError for a damaged file."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # what it raises depends on where the damage is: OSError, EOFError, KeyError, RuntimeError, UnpicklingError
        raise ValueError(f"{path} is damaged ({type(error).__name__}); delete it to begin the run anew, or restore a copy.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no checkpoint; delete it to begin the run anew.")
    return content


def check_finite(total: Tensor | float, metrics: Mapping[str, Tensor], *, stage: str, when: str, checkpoint: Path) -> None:
    """Raises NonFiniteLossError if `total`, the sum of metrics so far, is not finite; it names those of the last that are not."""
    if math.isfinite(float(total)):
        return
    bad = [name for name, value in metrics.items() if not math.isfinite(float(value))]
    raise NonFiniteLossError(
        f"{stage}: {', '.join(bad) or 'the sum'} became NaN or infinite {when}; the last good checkpoint is {checkpoint} "
        "(fit resumes from it; lower the learning rate or look at the data)."
    )
