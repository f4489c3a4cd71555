"""Agents on disk: agent.json says what to build and agent.safetensors holds the numbers, so that opening one runs no code.

Loading does its checks in the order of their price, so that a forged file is refused before it costs memory or time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from dreamgym.errors import InvalidModelError, ModelNotFoundError
from dreamgym.formats import modules, weights
from dreamgym.formats.codec import decode_at, encode
from dreamgym.formats.files import FileSet, Fingerprint, replace_files
from dreamgym.formats.spaces import check_keys
from dreamgym.formats.strict_json import MAX_BYTES, Place, dumps, escape, loads, quote
from dreamgym.formats.versions import check_format

__all__ = [
    "AGENT",
    "MAX_FILE",
    "WEIGHTS",
    "AgentDescription",
    "read_agent",
    "read_description",
    "read_kind",
    "write_agent",
    "write_description",
]

FORMAT = "dreamgym-agent"
FORMAT_VERSION = 1
AGENT, WEIGHTS = "agent.json", "agent.safetensors"
MAX_FILE = {AGENT: MAX_BYTES, WEIGHTS: 2 * 1024**3}  # bytes

_MAX_FEATURES = 2**20
_MISFIT = "does not fit this model"
_LEARNT = ("format", "format_version", "kind", "feature_size", "config", "files")
_PLANNED = ("format", "format_version", "kind", "config")
_OLDEST = "actor-critic"  # what the first files, without a kind, hold


Agent = TypeVar("Agent", bound=nn.Module)
Config = TypeVar("Config")
Files = str | Path | FileSet


@dataclass(frozen=True)
class AgentDescription:
    """What agent.json says, before anybody has looked into its config.

    feature_size is None for planners, which read states and have no weights. weights is None where agent.json does not vouch for them:
    for planners, and for agents saved before it did.
    """

    kind: str
    feature_size: int | None
    weights: Fingerprint | None
    config: Any
    place: Place

    def decode_config(self, config_class: type[Config]) -> Config:
        """The config as a dataclass. Raises InvalidModelError naming the key."""
        return decode_at(config_class, self.config, self.place.key("config"))


# ---- writing ------------------------------------------------------------------------------------------------------------


def write_agent(folder: str | Path, agent: nn.Module, *, feature_size: int, config: Any, kind: str) -> None:
    """Write both files as one set; config is a frozen dataclass that `formats.codec` can read back, kind tells agents apart."""
    data = weights.to_bytes(agent.state_dict())
    files = {WEIGHTS: encode(Fingerprint.of(data))}
    replace_files(Path(folder), {WEIGHTS: data, AGENT: _text(kind, config, feature_size=feature_size, files=files)})


def write_description(folder: str | Path, *, config: Any, kind: str) -> None:
    """Write agent.json alone, for agents without weights."""
    replace_files(Path(folder), {AGENT: _text(kind, config)})


def _text(kind: str, config: Any, **more: Any) -> bytes:
    return dumps({"format": FORMAT, "format_version": FORMAT_VERSION, "kind": kind, "config": encode(config), **more})


# ---- reading ------------------------------------------------------------------------------------------------------------


def read_kind(files: Files) -> str:
    """Which kind of agent is there; raises as `read_description`."""
    return read_description(files).kind


def read_description(files: Files) -> AgentDescription:
    """Read agent.json alone, of a folder or from the Hub's cache.

    Raises ModelNotFoundError (no such file), IncompatibleModelError (another format), InvalidModelError (damaged or forged).
    """
    files = _file_set(files)
    where = files.where(AGENT)
    value, place = loads(files.read(AGENT, limit=MAX_FILE[AGENT]), where), Place(where)
    if not isinstance(value, dict):
        raise place.error(f"is {quote(value)}; expected an object")
    value = _upgraded(value, where)
    learnt = "feature_size" in value or "files" in value
    check_keys(value, _LEARNT if learnt else _PLANNED, place)
    if not isinstance(value["kind"], str):
        raise place.key("kind").error(f"is {quote(value['kind'])}; expected text")
    size = _feature_size(value["feature_size"], place.key("feature_size")) if learnt else None
    fingerprint = _fingerprint(value["files"], place.key("files")) if learnt else None
    return AgentDescription(value["kind"], size, fingerprint, value["config"], place)


def read_agent(files: Files, config_class: type[Config], build: Callable[[int, Config], Agent], *, kind: str) -> Agent:
    """Read both files, of a folder or from the Hub's cache: data only; build(feature_size, config) makes the agent,
    a module with `predict`.

    Raises as `read_description`, InvalidModelError also where the agent does not fit the model that build has in mind.
    """
    files = _file_set(files)
    described = read_description(files)
    if described.kind != kind:
        raise described.place.key("kind").error(f"is {quote(described.kind)}; expected '{kind}'")
    if described.feature_size is None:
        raise described.place.error("lacks the key 'feature_size'; expected an agent with weights")
    config = described.decode_config(config_class)
    size, where = described.feature_size, described.place.where
    expected = modules.layout(lambda: build(size, config), where, kind="an agent", misfit=_MISFIT).state_dict()
    data, where = _read_weights(files, described.weights, weights.most_bytes(expected)), files.where(WEIGHTS)
    weights.check_exact(data, expected, where)
    tensors = weights.to_tensors(data, where)
    weights.check_finite(tensors, where)
    agent = modules.build(lambda: build(size, config), described.place.where, misfit=_MISFIT)
    agent.load_state_dict(tensors, strict=True, assign=False)
    _dry_step(agent, size, where)
    return agent


def _file_set(files: Files) -> FileSet:
    return files if isinstance(files, FileSet) else FileSet.of(Path(files).expanduser(), "agent")


def _upgraded(value: dict[str, Any], where: str) -> dict[str, Any]:
    """The JSON of an agent.json in the words of the newest; the first had no format, and did not vouch for the weights."""
    if "format" not in value and "format_version" not in value and "files" not in value:
        learnt = {"files": None} if "feature_size" in value else {}
        return {"format": FORMAT, "format_version": FORMAT_VERSION, "kind": _OLDEST, **value, **learnt}
    check_format(value, where, format=FORMAT, newest=FORMAT_VERSION, what="agent", kind="agent")
    if "files" in value and value["files"] is None:  # only the oldest may leave them out
        raise Place(where).key("files").error("is None; expected an object")
    return value


def _feature_size(value: Any, place: Place) -> int:
    size = decode_at(int, value, place)
    if not 1 <= size <= _MAX_FEATURES:
        raise place.error(f"is {size}; expected 1 to {_MAX_FEATURES}")
    return size


def _fingerprint(value: Any, place: Place) -> Fingerprint | None:
    """The one name must be our constant; it is compared, never joined to a path."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise place.error(f"is {quote(value)}; expected an object")
    check_keys(value, (WEIGHTS,), place)
    return decode_at(Fingerprint, value[WEIGHTS], place.key(WEIGHTS))


def _read_weights(files: FileSet, fingerprint: Fingerprint | None, most: int) -> bytes:
    try:
        data = files.read(WEIGHTS, limit=min(most, MAX_FILE[WEIGHTS]))
    except ModelNotFoundError as error:
        if files.found_pickles():
            raise InvalidModelError(f"{files.shown}: has no {WEIGHTS} {files.found_pickles()}") from error
        raise
    weights.check_looks(data, files.where(WEIGHTS))
    if fingerprint is not None:
        fingerprint.check(data, files.where(WEIGHTS), AGENT)
    return data


def _dry_step(agent: Any, feature_size: int, where: str) -> None:
    """Act once: finite weights can still explode."""
    features = np.linspace(-1.0, 1.0, 2 * feature_size, dtype=np.float32).reshape(2, feature_size)
    try:
        actions, _ = agent.predict(features, deterministic=True)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise InvalidModelError(f"{where}: acting once fails ({escape(str(error))})") from error
    if not np.isfinite(actions).all():
        raise InvalidModelError(f"{where}: acting once gives NaN or infinity; the weights explode")
