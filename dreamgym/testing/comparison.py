"""Whether two answers of a model are the same, exactly or up to the rounding of matrix products, and if not, where they differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dreamgym.structs import TensorStruct

__all__ = ["difference", "layout", "named_tensors", "rows"]

_ROUNDING = 1e-4  # of the largest value; batch sizes change how matrix products are summed
_RELATIVE = 1e-3


def named_tensors(answer: Any) -> dict[str, Tensor]:
    """The tensors of a struct, a dict or a tensor, by name. Raises TypeError for what holds anything else."""
    if isinstance(answer, Tensor):
        return {"": answer}
    found = dict(answer.items()) if isinstance(answer, (TensorStruct, dict)) else None
    if found is None or not all(isinstance(value, Tensor) for value in found.values()):
        raise TypeError(f"expected a tensor or a struct of tensors, received a {type(answer).__name__}.")
    return found


def rows(answer: Any, index: Any) -> dict[str, Tensor]:
    """The tensors of some rows."""
    return {name: tensor[index] for name, tensor in named_tensors(answer).items()}


def layout(state: Any) -> dict[str, str]:
    """Shape without the batch, and type, of each tensor: {"deter": "[200] float32"}."""
    return {name: f"{list(tensor.shape[1:])} {_type(tensor)}" for name, tensor in named_tensors(state).items()}


def difference(mine: Any, its: Any, *, exact: bool = False) -> str | None:
    """How the answers differ in words, None where they are the same. NaN equals NaN."""
    ours, theirs = named_tensors(mine), named_tensors(its)
    if ours.keys() != theirs.keys():
        return f"holds {sorted(ours)} instead of {sorted(theirs)}"
    for name, tensor in ours.items():
        told = _tensors_differ(tensor.detach().cpu(), theirs[name].detach().cpu(), exact)
        if told:
            return f"{name}: {told}" if name else told
    return None


def _tensors_differ(mine: Tensor, its: Tensor, exact: bool) -> str | None:
    if mine.shape != its.shape or mine.dtype != its.dtype:
        return f"{list(mine.shape)} {_type(mine)} instead of {list(its.shape)} {_type(its)}"
    if mine.numel() == 0:
        return None
    mine, its = mine.double(), its.double()
    if exact:
        apart = ~((mine == its) | (mine.isnan() & its.isnan()))
    else:
        apart = ~torch.isclose(mine, its, rtol=_RELATIVE, atol=_tolerance(its), equal_nan=True)
    if not bool(apart.any()):
        return None
    first = tuple(apart.nonzero()[0].tolist())
    where = f" in row {first[0]}" if first else ""
    return f"{float(mine[first]):.6g} instead of {float(its[first]):.6g}{where} ({int(apart.sum())} of {apart.numel()} numbers differ)"


def _tolerance(values: Tensor) -> float:
    finite = values[values.isfinite()]
    return _ROUNDING * max(1.0, float(finite.abs().max()) if finite.numel() else 1.0)


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
