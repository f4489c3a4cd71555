"""Checkpoints on disk: written whole or not at all, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

__all__ = ["read_checkpoint", "write_checkpoint"]


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
