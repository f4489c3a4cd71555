"""JSON text that came from a stranger: parsed with bounds, or refused with a message that names file, place and limit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dreamgym.errors import InvalidModelError

__all__ = ["MAX_BYTES", "Place", "dumps", "escape", "loads", "quote"]

MAX_BYTES = 64 * 1024
_MAX_DEPTH = 32
_MAX_INT_DIGITS = 20  # holds every int64; Python itself raises on 4,300 digits
_SHOWN = 200
_HALF = "holds half a surrogate pair, which is not text"


def escape(text: str) -> str:
    """Make untrusted text safe to print: no control or direction characters, at most 200 characters."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[: _SHOWN + 1])
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."


def quote(value: Any) -> str:
    """Show an untrusted value in a message: its escaped repr, at most 200 characters."""
    return escape(repr(value))


@dataclass(frozen=True)
class Place:
    """A spot in an untrusted file, so that every complaint says where."""

    where: str
    path: str = ""

    def key(self, name: str) -> Place:
        """The value under a key of the object here."""
        shown = name if name.isidentifier() and len(name) <= _SHOWN else quote(name)
        return Place(self.where, f"{self.path}.{shown}" if self.path else shown)

    def index(self, number: int) -> Place:
        """An element of the list here."""
        return Place(self.where, f"{self.path}[{number}]")

    def error(self, fact: str) -> InvalidModelError:
        """An error that reads `file: key 'path' <fact>`."""
        path = self.path if len(self.path) <= _SHOWN else f"...{self.path[-_SHOWN:]}"  # its end says most
        subject = f"key '{path}'" if path else "the top level"
        return InvalidModelError(f"{self.where}: {subject} {fact}")


def dumps(value: Any) -> bytes:
    """Write JSON that `loads` reads back. Raises ValueError on NaN and infinity."""
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def loads(data: bytes, where: str = "config.json", *, limit: int = MAX_BYTES) -> Any:
    """Parse strict JSON: UTF-8 without BOM, finite numbers, integers of 64 bits, no duplicate keys, nesting up to 32.

    Raises InvalidModelError, and nothing else, whatever the bytes.
    """
    if len(data) > limit:
        raise InvalidModelError(f"{where}: {len(data)} bytes; the limit is {limit}")
    if data.startswith(b"\xef\xbb\xbf"):
        raise InvalidModelError(f"{where}: starts with a byte order mark; expected plain UTF-8")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise InvalidModelError(f"{where}: key {quote(first_repeated(name for name, _ in pairs))} appears twice")
        return found

    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=unique, parse_int=_parse_int)
    except InvalidModelError:
        raise
    except UnicodeDecodeError as error:
        raise InvalidModelError(f"{where}: not UTF-8 text (byte {error.start})") from error
    except RecursionError as error:
        raise InvalidModelError(f"{where}: nested too deeply; the limit is {_MAX_DEPTH} levels") from error
    except ValueError as error:
        raise InvalidModelError(f"{where}: not JSON ({escape(str(error))})") from error
    _check_values(value, Place(where))
    return value


def first_repeated(names: Iterable[str]) -> str:
    """The first name that was there before; there must be one."""
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _parse_int(text: str) -> int | float:
    # Infinity instead of an error, because the walk below can say under which key it stands.
    return int(text) if len(text) <= _MAX_INT_DIGITS else math.inf


# Where a value stands, from the inside out: the key or index of a value, and where its holder stands. A Place for each value of a file
# would hold the whole path each time: 64 KiB with one long key became 500 MB.
_Trail = tuple[str | int, Any] | None


def _check_values(value: Any, top: Place) -> None:
    """Walk without recursion: a deep file must not exhaust our own stack."""
    waiting: list[tuple[Any, _Trail, int]] = [(value, None, 0)]
    while waiting:
        value, trail, depth = waiting.pop()
        fact = _complaint(value, depth)
        if fact is not None:
            raise _place(top, trail).error(fact)
        if isinstance(value, dict):
            for name, inner in value.items():
                if not _is_text(name):
                    raise _place(top, (name, trail)).error(_HALF)
                waiting.append((inner, (name, trail), depth + 1))
        elif isinstance(value, list):
            waiting += [(inner, (number, trail), depth + 1) for number, inner in enumerate(value)]


def _complaint(value: Any, depth: int) -> str | None:
    """What is wrong with a value, whatever it holds."""
    if isinstance(value, float) and not math.isfinite(value):
        return "is NaN, infinite or too large; expected a finite number"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "is too large; integers must fit into 64 bits"
    if isinstance(value, str) and not _is_text(value):
        return _HALF
    if isinstance(value, (dict, list)) and depth >= _MAX_DEPTH:
        return f"is nested too deeply; the limit is {_MAX_DEPTH} levels"
    return None


def _place(top: Place, trail: _Trail) -> Place:
    steps: list[str | int] = []
    while trail is not None:
        step, trail = trail
        steps.append(step)
    for step in reversed(steps):
        top = top.key(step) if isinstance(step, str) else top.index(step)
    return top


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
