"""Older config.json files in today's words: every format ever published stays readable, one step from each to the next."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dreamgym.formats.strict_json import Place

__all__ = ["upgrade"]


@dataclass(frozen=True)
class Addition:
    """Keys that an object of the file gained, with the values that mean what the older format meant without them.

    path leads to the object; type, if given, is the tag it must bear, for objects that may be one of several.
    """

    path: tuple[str, ...]
    values: dict[str, Any]
    type: str | None = None


# To give a config dataclass a new field: raise FORMAT_VERSION in config.py if it has been released, and add a line to its step here.
_SINCE_2 = (
    Addition(("spec", "preprocess"), {"stack": 1}),
    Addition(("model", "core", "latent"), {"type": "gaussian-latent", "std": "softplus"}),
    Addition(
        ("model", "core"),
        {
            "cell": {"type": "gru"},
            "prior_layers": 1,
            "posterior_layers": 1,
            "activation": "elu",
            "norm": "none",
            "path": "both",
            "prior_members": 1,
        },
        type="rssm",
    ),
)
_SINCE_3 = (Addition(("model", "defaults"), {"end_probability": 0.5, "belief": "mean", "dropout": None}),)


def upgrade(value: dict[str, Any], top: Place) -> dict[str, Any]:
    """The JSON of a config.json with a known format_version, in the words of the newest; `value` itself stays as it is.

    It only adds: what is wrong in the file is left for the decoder to find. Raises InvalidModelError if a file has a key that its
    format did not know.
    """
    steps: list[Callable[[dict[str, Any], Place], None]] = [_from_1_to_2, _from_2_to_3]
    value = copy.deepcopy(value)
    for step in steps[value["format_version"] - 1 :]:
        step(value, top)
        value["format_version"] += 1
    return value


def _from_1_to_2(value: dict[str, Any], top: Place) -> None:
    for addition in _SINCE_2:
        _add(value, addition, top)


def _from_2_to_3(value: dict[str, Any], top: Place) -> None:
    for addition in _SINCE_3:
        _add(value, addition, top)


def _add(value: Any, addition: Addition, place: Place) -> None:
    for name in addition.path:
        if not isinstance(value, dict) or name not in value:
            return
        value, place = value[name], place.key(name)
    if not isinstance(value, dict) or (addition.type is not None and value.get("type") != addition.type):
        return
    for name, meaning in addition.values.items():
        if name in value:
            raise place.error(f"has the unknown key '{name}', which came with a later format")
        value[name] = copy.deepcopy(meaning)
