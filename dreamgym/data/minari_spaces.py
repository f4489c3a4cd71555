"""Minari's words for spaces, in JSON, into ours and back; and how a world looks that was recorded in them."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamgym.formats.spaces import decode_space
from dreamgym.formats.strict_json import Place, loads, quote

__all__ = ["MAX_JSON", "as_seen", "parse_space", "seen", "to_json"]

MAX_JSON = 4 * 1024**2  # bytes; the bounds of every pixel are written out, 0.8 MB for Atari's frames
_FINITE = np.float32(1e6)  # as envs/preprocess: a dream predicts finite numbers


def parse_space(text: Any, place: Place) -> spaces.Space[Any]:
    """The space that Minari wrote as JSON text. Raises InvalidModelError naming the place."""
    if not isinstance(text, str):
        raise place.error(f"is {quote(text)}; expected text, which says what space it is (and no environment is built to find out)")
    named = re.sub(r"-?\bInfinity\b", lambda found: f'"{"-" if found[0][0] == "-" else ""}inf"', text)
    return decode_space(_in_our_words(loads(named.encode(errors="replace"), place.where, limit=MAX_JSON), place), place)


def _in_our_words(value: Any, place: Place) -> Any:
    """What decode_space reads; it refuses all that is not exactly that."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in ("Box", "Discrete", "MultiDiscrete", "Dict"):
        raise place.error(f"is a space of type {quote(kind)}; expected Box, Discrete, MultiDiscrete, or a flat Dict of those")
    rest = {name: inner for name, inner in value.items() if name != "type"}
    if kind == "Box":
        return {"type": "box", **rest}
    if kind == "Dict":
        parts = rest.pop("subspaces", None)
        if not isinstance(parts, dict):
            raise place.error(f"has the subspaces {quote(parts)}; expected an object")
        return {"type": "dict", "spaces": {name: _in_our_words(part, place.key(name)) for name, part in parts.items()}, **rest}
    rest.pop("dtype", None)  # of classes: they are read as int64
    if kind == "Discrete":
        return {"type": "discrete", "start": 0, **rest}
    count = len(rest["nvec"]) if isinstance(rest.get("nvec"), list) else 0
    return {"type": "multi-discrete", "start": [0] * count, **rest}


def to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """A space of a Spec in Minari's words."""
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "subspaces": {name: to_json(part) for name, part in space.items()}}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "dtype": "int64", "start": int(space.start), "n": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": "MultiDiscrete", "dtype": str(space.dtype), "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.Box):
        bounds = {"low": space.low.tolist(), "high": space.high.tolist()}
        return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), **bounds}
    raise TypeError(f"space {space} cannot be stored; expected Box, Discrete, MultiDiscrete or Dict.")


def as_seen(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The observation space that `make_env` would show of such an env: float32 vectors with finite bounds, images [Y,X,C], classes."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: as_seen(space[name]) for name in sorted(space)})
    if not isinstance(space, spaces.Box):
        return space
    if space.dtype == np.uint8 and len(space.shape) == 2:
        return spaces.Box(0, 255, (*space.shape, 1), np.uint8)
    if len(space.shape) > 1:
        return space
    low, high = (np.clip(np.atleast_1d(bound), -_FINITE, _FINITE).astype(np.float32) for bound in (space.low, space.high))
    return spaces.Box(low, high, dtype=np.float32)


def seen(values: NDArray[Any], space: spaces.Space[Any]) -> NDArray[Any]:
    """Recorded observations [N,...] of a part, as `as_seen(space)` has them. NaN stays NaN, for the replay to refuse."""
    if not isinstance(space, spaces.Box):
        return values
    if space.dtype == np.uint8 and len(space.shape) == 2:
        return values[..., None]
    if len(space.shape) > 1:
        return values
    vectors = values.reshape(len(values), -1)
    return np.clip(vectors, -_FINITE, _FINITE).astype(np.float32)


def dumps(space: spaces.Space[Any]) -> str:
    """The text that Minari keeps: JSON with Infinity."""
    return json.dumps(to_json(space))
