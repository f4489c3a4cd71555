"""gymnasium spaces as JSON and back, checked before a byte is allocated (Box(0, 1, (12000, 12000)) takes 1.3 GB)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamgym.formats.strict_json import Place, quote
from dreamgym.structs import PART_NAME

__all__ = ["decode_space", "encode_space"]

_MAX_ELEMENTS = 10**7
_MAX_CLASSES = 10**6
_MAX_DIMENSIONS = 8
_MAX_PARTS = 64
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8")
_DTYPES = (*_INTEGERS, "float32", "float64")
_KEYS = {
    "box": ("type", "shape", "dtype", "low", "high"),
    "discrete": ("type", "n", "start"),
    "multi-discrete": ("type", "nvec", "start"),
    "dict": ("type", "spaces"),
}


def encode_space(space: spaces.Space[Any]) -> dict[str, Any]:
    """Box, Discrete, MultiDiscrete or a flat Dict of at most 64 of those as JSON. Raises TypeError for any other space or name."""
    if isinstance(space, spaces.Box) and str(space.dtype) in _DTYPES:
        low, high = (_encode_bound(bound) for bound in (space.low, space.high))
        return {"type": "box", "shape": list(space.shape), "dtype": str(space.dtype), "low": low, "high": high}
    if isinstance(space, spaces.Discrete) and space.dtype == np.int64:
        return {"type": "discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete) and space.dtype == np.int64 and space.nvec.ndim == 1:
        return {"type": "multi-discrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.Dict) and _is_storable(space):
        return {"type": "dict", "spaces": {name: encode_space(inner) for name, inner in space.items()}}
    raise TypeError(
        f"space {space} cannot be stored; expected Box, Discrete or MultiDiscrete (int64), or a flat Dict of at most {_MAX_PARTS} of "
        "those, named by 1 to 64 letters, digits, '_', '.' or '-'"
    )


def _is_storable(space: spaces.Dict) -> bool:
    named = all(isinstance(name, str) and PART_NAME.fullmatch(name) for name in space)
    return named and 1 <= len(space) <= _MAX_PARTS and not any(isinstance(inner, spaces.Dict) for inner in space.values())


def decode_space(value: Any, place: Place) -> spaces.Space[Any]:
    """Build the space that JSON describes. Raises InvalidModelError naming the key."""
    return _decode_space(value, place, _Budget())


class _Budget:
    """Elements left to the spaces of one Dict together; a class counts as one, since models see it as one-hot."""

    left = _MAX_ELEMENTS

    def spend(self, elements: int, place: Place) -> None:
        self.left -= elements
        if self.left < 0:
            raise place.error(f"makes a space of more than {_MAX_ELEMENTS} elements, the limit")


def _decode_space(value: Any, place: Place, budget: _Budget, *, nested: bool = False) -> spaces.Space[Any]:
    tag = value.get("type") if isinstance(value, dict) else None
    if not isinstance(tag, str) or tag not in _KEYS or (nested and tag == "dict"):
        known = ", ".join(name for name in _KEYS if not (nested and name == "dict"))
        raise place.error(f"is {quote(value)}; expected an object whose type is one of {known}")
    check_keys(value, _KEYS[tag], place)
    if tag == "box":
        return _decode_box(value, place, budget)
    if tag == "discrete":
        n = _integer(value["n"], place.key("n"), 1, _MAX_CLASSES)
        budget.spend(n, place.key("n"))
        return spaces.Discrete(n, start=_integer(value["start"], place.key("start"), -(2**31), 2**31))
    if tag == "multi-discrete":
        nvec = _integers(value["nvec"], place.key("nvec"), 1, _MAX_CLASSES)
        start = _integers(value["start"], place.key("start"), -(2**31), 2**31)
        if len(nvec) != len(start) or not nvec:
            raise place.error(f"has {len(nvec)} nvec and {len(start)} start values; expected equally many, at least one")
        budget.spend(sum(nvec), place.key("nvec"))
        return spaces.MultiDiscrete(nvec, start=start)
    return _decode_dict(value["spaces"], place.key("spaces"), budget)


def _decode_dict(parts: Any, place: Place, budget: _Budget) -> spaces.Dict:
    if not isinstance(parts, dict) or not 1 <= len(parts) <= _MAX_PARTS:
        raise place.error(f"is {quote(parts)}; expected an object with at least one space and at most {_MAX_PARTS}")
    for name in parts:
        if not PART_NAME.fullmatch(name):
            raise place.error(f"has a space named {quote(name)}; expected 1 to 64 letters, digits, '_', '.' or '-'")
    return spaces.Dict({name: _decode_space(part, place.key(name), budget, nested=True) for name, part in parts.items()})


def check_keys(value: dict[str, Any], expected: tuple[str, ...], place: Place) -> None:
    """Demand exactly these keys; an unknown one is a typo or an attack, so it is never skipped."""
    unknown = [name for name in value if name not in expected]
    missing = [name for name in expected if name not in value]
    if unknown:
        raise place.error(f"has the unknown key {quote(unknown[0])}; expected {', '.join(expected)}")
    if missing:
        raise place.error(f"lacks the key '{missing[0]}'; expected {', '.join(expected)}")


def _decode_box(value: dict[str, Any], place: Place, budget: _Budget) -> spaces.Box:
    shape = _integers(value["shape"], place.key("shape"), 1, _MAX_ELEMENTS)
    if len(shape) > _MAX_DIMENSIONS:
        raise place.key("shape").error(f"has {len(shape)} dimensions; the limit is {_MAX_DIMENSIONS}")
    budget.spend(math.prod(shape), place.key("shape"))
    name = value["dtype"]
    if not isinstance(name, str) or name not in _DTYPES:
        raise place.key("dtype").error(f"is {quote(name)}; expected one of {', '.join(_DTYPES)}")
    dtype = np.dtype(name)
    low, high = (_decode_bound(value[key], shape, dtype, place.key(key)) for key in ("low", "high"))
    if not (low <= high).all():
        raise place.key("low").error("is above high")
    return spaces.Box(low, high, tuple(shape), dtype.type)


def _encode_bound(bound: NDArray[Any]) -> Any:
    uniform = bound.size > 0 and (bound == bound.flat[0]).all()
    return _name_infinity(bound.flat[0].item() if uniform else bound.tolist())


def _name_infinity(value: Any) -> Any:
    if isinstance(value, list):
        return [_name_infinity(inner) for inner in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def _decode_bound(value: Any, shape: list[int], dtype: np.dtype[Any], place: Place) -> NDArray[Any]:
    """A number for all elements, or nested lists of exactly `shape`."""
    if not isinstance(value, list):
        return np.broadcast_to(np.array(_number(value, dtype, place), dtype), shape)  # no memory yet: the space makes its own copy
    flat: list[Any] = []
    _flatten(value, shape, dtype, place, flat)
    return np.array(flat, dtype).reshape(shape)


def _flatten(value: Any, shape: list[int], dtype: np.dtype[Any], place: Place, flat: list[Any]) -> None:
    if not shape:
        flat.append(_number(value, dtype, place))
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        raise place.error(f"is {quote(value)}; expected a list of {shape[0]}, to match the shape")
    for number, inner in enumerate(value):
        _flatten(inner, shape[1:], dtype, place.index(number), flat)


def _number(value: Any, dtype: np.dtype[Any], place: Place) -> int | float:
    if dtype.name in _INTEGERS:
        limits = np.iinfo(dtype)
        return _integer(value, place, int(limits.min), int(limits.max))
    if value == "inf" or value == "-inf":
        return float(value)
    largest = float(np.finfo(dtype).max)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= largest:
        raise place.error(f'is {quote(value)}; expected a {dtype.name}, "inf" or "-inf"')
    return float(value)


def _integer(value: Any, place: Place, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise place.error(f"is {quote(value)}; expected an integer from {low} to {high}")
    return value


def _integers(value: Any, place: Place, low: int, high: int) -> list[int]:
    if not isinstance(value, list):
        raise place.error(f"is {quote(value)}; expected a list of integers")
    return [_integer(inner, place.index(number), low, high) for number, inner in enumerate(value)]
