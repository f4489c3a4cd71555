"""Agents on disk: agent.json says what to build and agent.safetensors holds the numbers, so that opening one runs no code."""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from dreamgym.errors import InvalidModelError, ModelNotFoundError

__all__ = ["read_agent", "read_config", "read_kind", "write_agent", "write_config"]

Agent = TypeVar("Agent", bound=nn.Module)
Config = TypeVar("Config")

_LARGEST = 64 * 1024  # bytes of agent.json; ours have 2000
_EXPECTED = {bool: "true or false", int: "an integer", float: "a finite number", str: "text"}


def write_agent(folder: Path, agent: nn.Module, *, feature_size: int, config: Any, kind: str | None = None) -> None:
    """Write both files; config is a frozen dataclass of plain values, choices, tuples and dataclasses. kind tells agents apart."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {} if kind is None else {"kind": kind}
    written = {**named, "feature_size": feature_size, "config": write_config(config)}
    (folder / "agent.json").write_text(json.dumps(written, indent=2, allow_nan=False) + "\n")
    save_file({name: tensor.contiguous() for name, tensor in agent.state_dict().items()}, folder / "agent.safetensors")


def read_kind(folder: Path) -> str | None:
    """Which kind of agent a folder says it holds; None where it does not say. Raises ModelNotFoundError, InvalidModelError."""
    written = _read_description(folder / "agent.json")
    kind = written.get("kind") if isinstance(written, dict) else None
    return kind if isinstance(kind, str) else None


def read_agent(folder: Path, config_class: type[Config], build: Callable[[int, Config], Agent], *, kind: str | None = None) -> Agent:
    """Read both files; build(feature_size, config) makes the agent. Raises ModelNotFoundError, or InvalidModelError for damaged files."""
    weights = folder / "agent.safetensors"
    if not weights.is_file():
        raise _absent(folder)
    written = _read_description(folder / "agent.json")
    _check_keys(written, ("feature_size", "config") if kind is None else ("kind", "feature_size", "config"), "agent.json")
    if kind is not None and written["kind"] != kind:
        raise InvalidModelError(f"agent.json holds an agent of kind {str(written['kind'])[:100]!r}; expected {kind}.")
    size = _read(int, written["feature_size"], "feature_size")
    if not 1 <= size <= 2**20:
        raise InvalidModelError(f"agent.json: feature_size is {size}; expected 1 to {2**20}.")
    config = read_config(config_class, written["config"])
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in build(size, config).state_dict().items()}
    try:
        with safe_open(weights, "pt") as opened:
            found = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 - no dict
        if found != expected:  # before anything of that size is allocated
            raise RuntimeError(_first_difference(found, expected))
        agent = build(size, config)
        agent.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise InvalidModelError(f"agent.safetensors does not fit agent.json and this model's actions: {str(error)[:500]}") from error
    return agent


def _read_description(path: Path) -> Any:
    if not path.is_file():
        raise _absent(path.parent)
    text = path.read_bytes()
    if len(text) > _LARGEST:
        raise InvalidModelError(f"agent.json has {len(text)} bytes; the limit is {_LARGEST}.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"agent.json is not JSON: {error}") from error


def _absent(folder: Path) -> ModelNotFoundError:
    return ModelNotFoundError(f"no agent at {str(folder)!r}: expected a folder with agent.json and agent.safetensors, as fit writes it.")


def _first_difference(found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> str:
    name = min(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return f"{name} has shape {found.get(name, 'none')}, expected {expected.get(name, 'none')}"


def write_config(config: Any) -> dict[str, Any]:
    """A config as JSON values, every field written; dataclasses carry their kind, since a field may allow several."""
    hints = get_type_hints(type(config))
    return {entry.name: _write(hints[entry.name], getattr(config, entry.name)) for entry in fields(config)}


def read_config(config_class: type[Config], value: Any, where: str = "config") -> Config:
    """A config from JSON values, strictly: every key present, none unknown, every type exact. Raises InvalidModelError saying where."""
    hints = get_type_hints(config_class)
    names = tuple(entry.name for entry in fields(config_class))  # type: ignore[arg-type]
    _check_keys(value, names, where)
    arguments = {name: _read(hints[name], value[name], f"{where}.{name}") for name in names}
    try:
        return config_class(**arguments)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InvalidModelError(f"agent.json: {where} is out of range: {error}") from error


def _write(hint: Any, value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        tag = {"type": _tag(type(value))} if len(_members(hint)) > 1 else {}
        return {**tag, **write_config(value)}
    return [_write(None, element) for element in value] if isinstance(value, tuple) else value


def _read(hint: Any, value: Any, where: str) -> Any:
    members = _members(hint)
    if value is None and type(None) in get_args(hint):
        return None
    if len(members) > 1:
        kinds = {_tag(member): member for member in members}
        tag = value.get("type") if isinstance(value, dict) else None
        if tag not in kinds:
            raise InvalidModelError(f"agent.json: {where} has the unknown type {str(tag)[:100]!r}; expected {', '.join(sorted(kinds))}.")
        return read_config(kinds[tag], {name: inner for name, inner in value.items() if name != "type"}, where)
    (hint,) = members
    if is_dataclass(hint):
        return read_config(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        if isinstance(value, str) and value in get_args(hint):
            return value
        raise InvalidModelError(f"agent.json: {where} is {str(value)[:100]!r}; expected one of {', '.join(get_args(hint))}.")
    if get_origin(hint) is tuple:
        return _read_tuple(hint, value, where)
    return _read_number(hint, value, where)


def _read_tuple(hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    """Of any length, tuple[T, ...], or as many as the hint names."""
    inner = get_args(hint)
    if not isinstance(value, list) or (inner[-1] is not Ellipsis and len(value) != len(inner)):
        raise InvalidModelError(f"agent.json: {where} is {str(value)[:100]!r}; expected a list as long as {hint} says.")
    hints = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
    return tuple(_read(one, element, f"{where}[{number}]") for number, (one, element) in enumerate(zip(hints, value)))


def _read_number(hint: Any, value: Any, where: str) -> Any:
    if hint is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is hint and (hint is not float or math.isfinite(value)):
        return value
    raise InvalidModelError(f"agent.json: {where} is {str(value)[:100]!r}; expected {_EXPECTED.get(hint, hint)}.")


def _members(hint: Any) -> tuple[Any, ...]:
    """What a hint allows besides None."""
    if get_origin(hint) not in (Union, types.UnionType):
        return (hint,)
    return tuple(member for member in get_args(hint) if member is not type(None))


def _tag(cls: type) -> str:
    """As in a model's config.json: TanhNormalConfig -> tanh-normal."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__.removesuffix("Config")).lower()


def _check_keys(value: Any, names: tuple[str, ...], where: str) -> None:
    if not isinstance(value, dict) or set(value) != set(names):
        found = ", ".join(sorted(map(str, value)))[:200] if isinstance(value, dict) else str(value)[:100]
        raise InvalidModelError(f"agent.json: {where} holds {found}; expected exactly {', '.join(names)}.")
