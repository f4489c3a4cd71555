"""safetensors files from a stranger: the header must be exactly what the model wants before a tensor is made of it.

The safetensors library checks bounds and overlaps by itself; it accepts duplicate names, half a million empty tensors and NaN.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from dreamgym.errors import InvalidModelError
from dreamgym.formats.strict_json import escape, first_repeated, quote

__all__ = [
    "TensorInfo",
    "check_exact",
    "check_finite",
    "check_looks",
    "check_names",
    "check_type",
    "most_bytes",
    "read_header",
    "to_bytes",
    "to_tensors",
]

_MAX_TENSORS = 10_000
_MAX_HEADER = 4 * 1024 * 1024
_STORED_AS = {
    torch.float64: ("F64",),
    torch.float32: ("F32", "F16", "BF16"),  # weights may be kept in half the space
    torch.float16: ("F16",),
    torch.bfloat16: ("BF16",),
    torch.int64: ("I64",),
    torch.int32: ("I32",),
    torch.int16: ("I16",),
    torch.int8: ("I8",),
    torch.uint8: ("U8",),
    torch.bool: ("BOOL",),
}


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def check_looks(data: bytes, where: str) -> None:
    """Say what a file is that is no safetensors file; cheap, and more helpful than a checksum that differs."""
    if data.startswith(b"version https://git-lfs"):
        raise InvalidModelError(f"{where}: not a safetensors file but a Git LFS pointer; fetch the content with: git lfs pull")
    if data.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise InvalidModelError(f"{where}: not a safetensors file but an HTML page; a proxy or login page may have answered")
    if data.startswith(b"PK\x03\x04") or (data[:1] == b"\x80" and data[8:9] != b"{"):
        raise InvalidModelError(f"{where}: not a safetensors file but a pickle, which dreamgym does not load")


def read_header(data: bytes, where: str) -> dict[str, TensorInfo]:
    """Names, dtypes and shapes in a safetensors file, at most 10,000. Raises InvalidModelError if it is not such a file."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 10 or size > len(data) - 8 or data[8:9] != b"{":
        raise InvalidModelError(f"{where}: not a safetensors file, or cut off in its header")
    if size > _MAX_HEADER:
        raise InvalidModelError(f"{where}: a header of {size} bytes; the limit is {_MAX_HEADER} (for {_MAX_TENSORS} tensors)")
    try:
        header = json.loads(data[8 : 8 + size].decode("utf-8"), object_pairs_hook=_Unique)
    except _TwiceError as error:
        raise InvalidModelError(f"{where}: tensor {quote(str(error))} appears twice in the header") from error
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"{where}: not a safetensors file, its header is not JSON") from error
    header.pop("__metadata__", None)
    if len(header) > _MAX_TENSORS:
        raise InvalidModelError(f"{where}: {len(header)} tensors; the limit is {_MAX_TENSORS}")
    return {name: _tensor_info(name, entry, where) for name, entry in header.items()}


class _TwiceError(Exception):
    """A name appears twice."""


class _Unique(dict[str, Any]):
    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        if len(self) < len(pairs):
            raise _TwiceError(first_repeated(name for name, _ in pairs))


def _tensor_info(name: str, entry: Any, where: str) -> TensorInfo:
    dtype, shape = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
    if not isinstance(dtype, str) or not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidModelError(f"{where}: tensor {quote(name)} has the header {quote(entry)}; expected a dtype and a shape")
    return TensorInfo(dtype, tuple(shape))


def most_bytes(wanted: Mapping[str, Tensor]) -> int:
    """The largest file that these tensors need; no larger one has to be read to be refused."""
    return 8 + _MAX_HEADER + sum(tensor.numel() * tensor.element_size() for tensor in wanted.values())


def check_names(header: Mapping[str, TensorInfo], wanted: Mapping[str, Any], where: str) -> None:
    """Demand exactly the wanted tensors."""
    missing = [name for name in wanted if name not in header]
    extra = [name for name in header if name not in wanted]
    if missing:
        raise InvalidModelError(f"{where}: lacks {len(missing)} of {len(wanted)} tensors: {_list(missing)}")
    if extra:
        raise InvalidModelError(f"{where}: has {len(extra)} tensors that this model does not: {_list(extra)}")


def check_exact(data: bytes, wanted: Mapping[str, Tensor], where: str) -> None:
    """Demand a file of exactly the wanted tensors, by its header alone."""
    header = read_header(data, where)
    check_names(header, wanted, where)
    for name, tensor in wanted.items():
        check_type(name, header[name], tensor, tuple(tensor.shape), where)


def check_type(name: str, info: TensorInfo, wanted: Tensor, shape: tuple[int, ...], where: str) -> None:
    """Demand the shape and a dtype that turns into the wanted one without loss or surprise."""
    if info.shape != shape:
        raise InvalidModelError(f"{where}: tensor {quote(name)} has shape {_shape(info.shape)}; expected {_shape(shape)}")
    allowed = _STORED_AS[wanted.dtype]
    if info.dtype not in allowed:
        raise InvalidModelError(f"{where}: tensor {quote(name)} is {escape(info.dtype)}; expected {' or '.join(allowed)}")


def to_tensors(data: bytes, where: str) -> dict[str, Tensor]:
    """Make the tensors, after the header has been checked. Raises InvalidModelError if the rest of the file is inconsistent."""
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, RuntimeError, AssertionError) as error:
        raise InvalidModelError(f"{where}: not a consistent safetensors file ({escape(str(error))})") from error


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse NaN and infinity, naming the first tensor that holds any."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise InvalidModelError(f"{where}: tensor {quote(name)} holds {count} NaN or infinite values of {tensor.numel()}")


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file of these tensors; each is copied, so that tied or strided storage does not matter."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain)


def _list(names: list[str]) -> str:
    return ", ".join(quote(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")


def _shape(shape: tuple[int, ...]) -> str:
    return escape(str(list(shape)))
