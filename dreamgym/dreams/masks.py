"""Reads how a caller addresses slots: masks, indices, seeds, and the names of modes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["check_autoreset_mode", "check_output", "reset_mask", "seed_list"]


def reset_mask(options: dict[str, Any], num_envs: int) -> NDArray[np.bool_] | None:
    """Take reset_mask or env_idx out of a copy of reset options: bool [B], or None for all slots.

    Raises TypeError for a mask that is not of bools, ValueError for a wrong shape, an empty choice, or both at once.
    """
    mask, index = options.pop("reset_mask", None), options.pop("env_idx", None)
    if mask is not None and index is not None:
        raise ValueError("reset_mask and env_idx are both given; they say the same thing, pass one.")
    if index is not None:
        return _from_indices(index, num_envs)
    if mask is None:
        return None
    mask = mask.cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if mask.dtype != np.bool_:
        raise TypeError(f"reset_mask is of {mask.dtype}; expected {num_envs} bools, as a list or a NumPy array.")
    if mask.shape != (num_envs,) or not mask.any():
        raise ValueError(f"reset_mask has shape {mask.shape} and {mask.sum()} true rows; expected shape ({num_envs},) and at least one.")
    return mask.copy()


def seed_list(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None] | None:
    """One seed per slot: s gives s, s+1, ...; a list keeps its None entries. Raises ValueError for a wrong length or sign."""
    if seed is None:
        return None
    seeds: list[int | None] = (
        [int(seed) + slot for slot in range(num_envs)]
        if isinstance(seed, (int, np.integer))
        else [None if one is None else int(one) for one in seed]
    )
    if len(seeds) != num_envs or any(one is not None and one < 0 for one in seeds):
        raise ValueError(f"seed is {seed!r}; expected one number, or a list of {num_envs} of them or None, none negative.")
    return seeds


def check_autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """The mode of that name or value. Raises ValueError naming the choices."""
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        raise ValueError(f"autoreset_mode is {mode!r}; expected one of {[known.value for known in AutoresetMode]}.") from error


def check_output(output: str) -> str:
    """The kind of output. Raises ValueError naming the choices."""
    if output not in ("numpy", "torch"):
        raise ValueError(f"output is {output!r}; expected 'numpy' or 'torch'.")
    return output


def _from_indices(index: Any, num_envs: int) -> NDArray[np.bool_]:
    rows = np.atleast_1d(index.cpu().numpy() if isinstance(index, Tensor) else np.asarray(index))
    if rows.dtype.kind not in "iu":
        raise TypeError(f"env_idx is {index!r}; expected slot numbers.")
    if rows.ndim != 1 or len(rows) == 0 or rows.min() < 0 or rows.max() >= num_envs:
        raise ValueError(f"env_idx is {index!r}; expected at least one slot number from 0 to {num_envs - 1}.")
    mask = np.zeros(num_envs, np.bool_)
    mask[rows] = True
    return mask
