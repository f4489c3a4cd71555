"""config.json: the one file of a model folder that decides anything, as typed data."""

from __future__ import annotations

import importlib.metadata
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import torch

from dreamgym.errors import InvalidModelError, ModelNotFoundError
from dreamgym.formats.codec import decode_at, encode
from dreamgym.formats.files import FileSet, Fingerprint
from dreamgym.formats.spaces import check_keys
from dreamgym.formats.strict_json import MAX_BYTES, Place, dumps, loads, quote
from dreamgym.formats.versions import check_format
from dreamgym.hub.upgrades import upgrade
from dreamgym.models.world_model import WorldModelConfig
from dreamgym.structs import Spec

__all__ = ["CONFIG", "MAX_FILE", "STARTS", "WEIGHTS", "BundleConfig", "parse_config", "read_config", "write_config"]

FORMAT = "dreamgym-world-model"
FORMAT_VERSION = 3
CONFIG, WEIGHTS, STARTS = "config.json", "model.safetensors", "initial_states.safetensors"
MAX_FILE = {WEIGHTS: 2 * 1024**3, STARTS: 256 * 1024**2}  # bytes


@dataclass(frozen=True)
class BundleConfig:
    """What config.json says. source is provenance for humans: text, never run and never passed to gym.make."""

    spec: Spec
    model: WorldModelConfig
    files: dict[str, Fingerprint]
    source: dict[str, Any]


def write_config(config: BundleConfig) -> bytes:
    """The text of config.json, with this package's versions added to the source. Raises TypeError for what cannot be stored."""
    text = dumps(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "spec": encode(config.spec),
            "model": encode(config.model),
            "files": {name: encode(fingerprint) for name, fingerprint in config.files.items()},
            "source": {**_versions(), **config.source},
        }
    )
    parse_config(text, "the new config.json")  # what we write, we can read
    return text


def read_config(files: str | os.PathLike[str] | FileSet) -> BundleConfig:
    """Read only config.json, of a folder or from the Hub's cache: what the model is, without its weights. Raises as `load`."""
    files = files if isinstance(files, FileSet) else FileSet.of(Path(files).expanduser())
    try:
        data = files.read(CONFIG, limit=MAX_BYTES)
    except ModelNotFoundError as error:
        pickles = ""
        with suppress(OSError):  # a path too long for the system
            pickles = files.found_pickles()
        if pickles:
            raise InvalidModelError(f"{error} {pickles}") from error
        raise
    return parse_config(data, files.where(CONFIG))


def parse_config(data: bytes, where: str) -> BundleConfig:
    """Check and decode the text of a config.json. Raises IncompatibleModelError or InvalidModelError."""
    top = Place(where)
    value = loads(data, where)
    if not isinstance(value, dict):
        raise top.error(f"is {quote(value)}; expected an object")
    reader = f"this dreamgym ({importlib.metadata.version('dreamgym')})"
    check_format(value, where, format=FORMAT, newest=FORMAT_VERSION, what="world model", kind="model", reader=reader)
    value = upgrade(value, top)
    check_keys(value, ("format", "format_version", "spec", "model", "files", "source"), top)
    if not isinstance(value["source"], dict):
        raise top.key("source").error(f"is {quote(value['source'])}; expected an object")
    return BundleConfig(
        spec=decode_at(Spec, value["spec"], top.key("spec")),
        model=decode_at(WorldModelConfig, value["model"], top.key("model")),
        files=_parse_files(value["files"], top.key("files")),
        source=value["source"],
    )


def _parse_files(value: Any, place: Place) -> dict[str, Fingerprint]:
    """The names must be our two constants; they are compared, never joined to a path."""
    if not isinstance(value, dict):
        raise place.error(f"is {quote(value)}; expected an object")
    check_keys(value, (WEIGHTS, STARTS), place)
    found = {}
    for name, limit in MAX_FILE.items():
        fingerprint = decode_at(Fingerprint, value[name], place.key(name))
        if fingerprint.size > limit:
            raise place.key(name).key("size").error(f"is {fingerprint.size}; expected 1 to {limit} bytes")
        found[name] = fingerprint
    return found


def _versions() -> dict[str, str]:
    return {"dreamgym": importlib.metadata.version("dreamgym"), "torch": str(torch.__version__), "gymnasium": gymnasium.__version__}
