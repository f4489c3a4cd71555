"""Frozen dataclasses as JSON and back, driven by their type hints, so that a config file can say nothing but data.

A union of dataclasses carries a "type" tag that is looked up among the members of that union; no name from a file is ever imported.
"""

from __future__ import annotations

import math
import re
import types
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gymnasium import spaces

from dreamgym.formats.spaces import check_keys, decode_space, encode_space
from dreamgym.formats.strict_json import Place, escape, loads, quote

__all__ = ["decode", "encode", "loads"]

T = TypeVar("T")

_EXPECTED = {bool: "true or false", int: "an integer", float: "a finite number", str: "text"}
_LARGEST_FLOAT = 1.7e308


def encode(obj: Any) -> Any:
    """A dataclass or gymnasium space as a JSON value, every field written, also those at their defaults.

    Raises TypeError if a field's type hint is not one that `decode` can read back, or its value does not match the hint.
    """
    return _encode(type(obj), obj, type(obj).__name__)


def decode(cls: type[T], value: Any, where: str = "config.json") -> T:
    """Build `cls` from a JSON value, strictly: every key present, none unknown, every type exact; ranges by its __post_init__.

    Raises InvalidModelError naming `where` and the key.
    """
    return decode_at(cls, value, Place(where))


def decode_at(cls: type[T], value: Any, place: Place) -> T:
    """`decode` for a value that stands somewhere inside a file."""
    decoded: T = _decode(cls, value, place)
    return decoded


def tag_of(cls: Any) -> str:
    """The name a union member has in a file: RSSMConfig -> rssm, GaussianLatent -> gaussian-latent."""
    name = cls.__name__.removesuffix("Config") or cls.__name__
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def _encode(hint: Any, value: Any, path: str) -> Any:
    members, optional = _members(hint)
    if value is None and optional:
        return None
    if len(members) > 1:
        tag = tag_of(type(value))
        if _variants(hint).get(tag) is not type(value):
            raise TypeError(f"{path} is {value!r}; expected {hint}")
        return {"type": tag, **_encode(type(value), value, path)}
    (hint,) = members
    if get_origin(hint) is Literal and value in get_args(hint):
        return value
    if get_origin(hint) is tuple and isinstance(value, (tuple, list)):  # what was given as a list comes back as a tuple
        hints = _element_hints(hint, len(value))
        if hints is not None:
            return [_encode(inner, element, f"{path}[{number}]") for number, (inner, element) in enumerate(zip(hints, value))]
    if _is_space(hint):
        return encode_space(value)
    if is_dataclass(hint) and type(value) is hint:
        return {name: _encode(inner, getattr(value, name), f"{path}.{name}") for name, inner in _fields(hint).items()}
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    raise TypeError(f"{path} is {value!r}, which cannot be stored as {hint}")


def _decode(hint: Any, value: Any, place: Place) -> Any:
    members, optional = _members(hint)
    if value is None and optional:
        return None
    if len(members) > 1:
        return _decode_variant(_variants(hint), value, place)
    (hint,) = members
    if get_origin(hint) is Literal:
        return _decode_literal(get_args(hint), value, place)
    if get_origin(hint) is tuple:
        return _decode_tuple(hint, value, place)
    if _is_space(hint):
        return decode_space(value, place)
    if is_dataclass(hint):
        return _decode_dataclass(hint, value, place, tagged=False)
    return _decode_scalar(hint, value, place, optional)


def _decode_variant(variants: dict[str, Any], value: Any, place: Place) -> Any:
    tag = value.get("type") if isinstance(value, dict) else None
    if not isinstance(tag, str) or tag not in variants:
        raise place.error(f"has the unknown type {quote(tag)}; this version knows {', '.join(sorted(variants))}")
    return _decode_dataclass(variants[tag], value, place, tagged=True)


def _decode_dataclass(cls: Any, value: Any, place: Place, *, tagged: bool) -> Any:
    if not isinstance(value, dict):
        raise place.error(f"is {quote(value)}; expected an object")
    hints = _fields(cls)
    check_keys(value, ("type", *hints) if tagged else tuple(hints), place)
    arguments = {name: _decode(hint, value[name], place.key(name)) for name, hint in hints.items()}
    try:
        return cls(**arguments)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise place.error(f"is out of range: {escape(str(error))}") from error


def _decode_literal(choices: tuple[Any, ...], value: Any, place: Place) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    raise place.error(f"is {quote(value)}; expected one of {', '.join(map(repr, choices))}")


def _decode_tuple(hint: Any, value: Any, place: Place) -> tuple[Any, ...]:
    hints = _element_hints(hint, len(value)) if isinstance(value, list) else None
    if hints is None:
        count = "" if get_args(hint)[-1] is Ellipsis else f" of {len(get_args(hint))}"
        raise place.error(f"is {quote(value)}; expected a list{count}")
    return tuple(_decode(inner, element, place.index(number)) for number, (inner, element) in enumerate(zip(hints, value)))


def _decode_scalar(hint: Any, value: Any, place: Place, optional: bool) -> Any:
    if hint not in _EXPECTED:
        raise TypeError(f"{place.path}: {hint} is not a type that config files can hold")
    if type(value) is hint and (hint is not float or math.isfinite(value)):
        return value
    if hint is float and type(value) is int and abs(value) <= _LARGEST_FLOAT:
        return float(value)
    raise place.error(f"is {quote(value)}; expected {_EXPECTED[hint]}{' or null' if optional else ''}")


def _members(hint: Any) -> tuple[tuple[Any, ...], bool]:
    """What a hint allows besides None, and whether it allows None."""
    if get_origin(hint) not in (Union, types.UnionType):
        return (hint,), False
    members = tuple(member for member in get_args(hint) if member is not type(None))
    return members, len(members) < len(get_args(hint))


def _variants(hint: Any) -> dict[str, Any]:
    members, _ = _members(hint)
    variants = {tag_of(member): member for member in members if is_dataclass(member)}
    if len(variants) < len(members) or any("type" in _fields(member) for member in members):
        raise TypeError(f"{hint}: only dataclasses with different names and no field named 'type' can be told apart in a file")
    return variants


def _fields(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {entry.name: hints[entry.name] for entry in fields(cls) if entry.init}


def _element_hints(hint: Any, count: int) -> list[Any] | None:
    """The hint of each element of a tuple of that many, or None if it must not have that many."""
    arguments = get_args(hint)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return [arguments[0]] * count
    return list(arguments) if len(arguments) == count else None


def _is_space(hint: Any) -> bool:
    cls = get_origin(hint) or hint
    return isinstance(cls, type) and issubclass(cls, spaces.Space)
