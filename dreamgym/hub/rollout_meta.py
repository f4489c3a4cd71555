"""meta.json: the one file of a folder of rollouts that decides anything, as typed data."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch

from dreamgym.data.replay import Replay
from dreamgym.errors import InvalidDataError, InvalidModelError, data_errors
from dreamgym.formats.codec import decode_at, encode
from dreamgym.formats.files import Fingerprint
from dreamgym.formats.spaces import check_keys
from dreamgym.formats.strict_json import Place, dumps, escape, loads, quote
from dreamgym.formats.versions import check_format
from dreamgym.structs import Spec

__all__ = ["MAX_META", "MAX_SHARDS", "META", "RolloutMeta", "Shard", "parse_meta", "shard_name", "write_meta"]

FORMAT = "dreamgym-rollouts"
FORMAT_VERSION = 1  # to raise with every new key here and every new field of Spec, with an upgrade as in hub/upgrades.py
META = "meta.json"
MAX_META = 1024**2  # bytes
_MAX_SHARD = 1024**3  # bytes of a shard as it lies on disk
MAX_SHARDS = 1024
_MAX_POLICIES = 1024
_MAX_NAME = 200


@dataclass(frozen=True)
class Shard:
    """One file of whole episodes: its checksum and size on disk, and what it holds."""

    sha256: str
    size: int  # bytes
    episodes: int
    rows: int  # one more than steps for each episode

    def __post_init__(self) -> None:
        if self.fingerprint.size > _MAX_SHARD:
            raise ValueError(f"size is {self.size}; expected 1 to {_MAX_SHARD} bytes")
        if self.episodes < 1 or self.rows < 2 * self.episodes:
            raise ValueError(f"{self.episodes} episodes of {self.rows} rows; expected at least one, of at least two rows each")

    @property
    def fingerprint(self) -> Fingerprint:
        """What the file must be."""
        return Fingerprint(self.sha256, self.size)


@dataclass(frozen=True)
class RolloutMeta:
    """What meta.json says. statistics and source are for humans: never computed with, never passed to gym.make."""

    spec: Spec
    policies: tuple[str, ...]  # names that the shards refer to by number
    seeds: tuple[int, ...]  # what the experience was collected with
    shards: tuple[Shard, ...]
    statistics: dict[str, Any]
    source: dict[str, Any]

    def __post_init__(self) -> None:
        if not 1 <= len(self.shards) <= MAX_SHARDS:
            raise ValueError(f"{len(self.shards)} shards; expected 1 to {MAX_SHARDS}")
        if not 1 <= len(self.policies) <= _MAX_POLICIES or max(map(len, self.policies)) > _MAX_NAME:
            raise ValueError(f"{len(self.policies)} policies; expected 1 to {_MAX_POLICIES}, named by at most {_MAX_NAME} characters")
        if len(set(self.policies)) < len(self.policies):
            raise ValueError("a policy is listed twice")

    @property
    def episodes(self) -> int:
        """In all shards."""
        return sum(shard.episodes for shard in self.shards)

    @property
    def rows(self) -> int:
        """In all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def steps(self) -> int:
        """Actions taken, in all shards."""
        return self.rows - self.episodes


def shard_name(number: int) -> str:
    """Where shard `number` lies: names follow from the count and are never read from a file."""
    return f"data/episodes-{number:05d}.npz"


def write_meta(meta: RolloutMeta) -> bytes:
    """The text of meta.json, with this package's versions added to the source. Raises TypeError or ValueError for what does not fit."""
    text = dumps(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "spec": encode(meta.spec),
            "episodes": meta.episodes,
            "steps": meta.steps,
            "policies": list(meta.policies),
            "seeds": list(meta.seeds),
            "shards": [encode(shard) for shard in meta.shards],
            "statistics": meta.statistics,
            "source": {**_versions(), **meta.source},
        }
    )
    parse_meta(text, "the new meta.json")  # what we write, we can read
    return text


def parse_meta(data: bytes, where: str) -> RolloutMeta:
    """Check and decode the text of a meta.json. Raises InvalidDataError."""
    with data_errors():
        top = Place(where)
        value = loads(data, where, limit=MAX_META)
        if not isinstance(value, dict):
            raise top.error(f"is {quote(value)}; expected an object")
        reader = f"this dreamgym ({importlib.metadata.version('dreamgym')})"
        named: dict[str, str] = {"what": "dataset", "kind": "dataset", "reader": reader}
        check_format(value, where, format=FORMAT, newest=FORMAT_VERSION, error=InvalidDataError, **named)
        keys = ("format", "format_version", "spec", "episodes", "steps", "policies", "seeds", "shards", "statistics", "source")
        check_keys(value, keys, top)
        for name in ("statistics", "source"):
            if not isinstance(value[name], dict):
                raise top.key(name).error(f"is {quote(value[name])}; expected an object")
        meta = _decode(value, top)
        for name, counted in (("episodes", meta.episodes), ("steps", meta.steps)):
            if type(value[name]) is not int or value[name] != counted:
                raise top.key(name).error(f"is {quote(value[name])}; the shards hold {counted}")
        return meta


def _decode(value: dict[str, Any], top: Place) -> RolloutMeta:
    shards = value["shards"]
    if not isinstance(shards, list) or len(shards) > MAX_SHARDS:
        raise top.key("shards").error(f"is {quote(shards)}; expected a list of 1 to {MAX_SHARDS}")
    spec = decode_at(Spec, value["spec"], top.key("spec"))
    try:
        Replay(spec)  # spaces that no replay can hold, actions that no model could take
        spec.to_model_action(spec.to_env_action(torch.zeros(spec.action_size)))
        return RolloutMeta(
            spec=spec,
            policies=decode_at(tuple[str, ...], value["policies"], top.key("policies")),
            seeds=decode_at(tuple[int, ...], value["seeds"], top.key("seeds")),
            shards=decode_at(tuple[Shard, ...], shards, top.key("shards")),
            statistics=value["statistics"],
            source=value["source"],
        )
    except InvalidModelError:
        raise
    except (TypeError, ValueError) as error:
        raise top.error(f"is out of range: {escape(str(error))}") from error


def _versions() -> dict[str, str]:
    return {"dreamgym": importlib.metadata.version("dreamgym"), "numpy": np.__version__, "gymnasium": gymnasium.__version__}
