"""Small changes to good files, each a pure function of two numbers, so that hypothesis can choose, repeat and shrink them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["BODIES", "JSON_CHANGES", "TEXT_CHANGES", "change_json", "change_tensors", "change_text"]

Tree = Any

_EXTREMES: list[Any] = [
    *(0, -1, 1, 2, 3, 7, 64, 255, 256, 1000, 16384, 10**6, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 10**19, 10**40),
    *(0.0, -0.0, 0.5, -0.5, 1.0, 1e-300, 5e-324, 1e38, 1e39, 1e308, -1e308, float("inf"), float("-inf"), float("nan")),
    *(True, False, None, "", "inf", "-inf", "NaN", "0", "float32", "uint8", "int64", "BOOL", "F64", "C64", "box", "dict", "rssm", "mdnrnn"),
    *("\x1b[2J\x1b]0;x\x07", "\u202e\u2066", "\ud800", "\x00", "é" * 300, "../../etc/passwd", "os:system", "__class__", "a" * 5000),
    *([], {}, [[]], [0], [0, 0], [-1], [2**40], [2**31, 2**31, 2**31], [1] * 9, {"type": "box"}, {"": {}}, {"__proto__": 1}, [None] * 100),
]
_NAMES = ["type", "", "shape", "units", "_target_", "__class__", "\x1b[31m", "\ud800", "dtype", "data_offsets", "__metadata__", "a" * 500]
_SNIPPETS = [
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"0x10", b"1e-400", b"9" * 5000, b"1" * 400 + b".5e-2", b"\xef\xbb\xbf"),
    *(b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\\u001b[2J", b"\xe2\x80\xae", b"//", b"/*", b",", b":", b'"', b"\\"),
    *(b"[" * 40, b"[" * 3000, b'{"a":' * 40, b"]" * 40, b"{", b"}", b"null", b"true", b"-", b" " * 70_000, b"\r\n", b"\x1b[2J"),
]


# ---- values of a tree -------------------------------------------------------------------------------------------------------


def _places(tree: Tree) -> Iterator[tuple[Any, Any]]:
    """Every container and the key or index of every value in it."""
    if isinstance(tree, (dict, list)):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


def _place(tree: Tree, number: int) -> tuple[Any, Any]:
    places = list(_places(tree))
    return places[number % len(places)] if places else ({"": 0}, "")


def _extreme(tree: Tree, where: int, what: int) -> None:
    holder, key = _place(tree, where)
    holder[key] = copy.deepcopy(_EXTREMES[what % len(_EXTREMES)])


def _remove(tree: Tree, where: int, what: int) -> None:
    holder, key = _place(tree, where)
    del holder[key]


def _insert(tree: Tree, where: int, what: int) -> None:
    holder, key = _place(tree, where)
    value = copy.deepcopy(_EXTREMES[what % len(_EXTREMES)])
    if isinstance(holder, dict):
        holder[_NAMES[what % len(_NAMES)]] = value
    else:
        holder.insert(key, value)


def _rename(tree: Tree, where: int, what: int) -> None:
    holder, key = _place(tree, where)
    if isinstance(holder, dict):
        holder[_NAMES[what % len(_NAMES)]] = holder.pop(key)


def _swap(tree: Tree, where: int, what: int) -> None:
    (holder, key), (other, name) = _place(tree, where), _place(tree, what)
    holder[key], other[name] = copy.deepcopy(other[name]), copy.deepcopy(holder[key])


def _retype(tree: Tree, where: int, what: int) -> None:
    holder, key = _place(tree, where)
    value = holder[key]
    ways: list[Callable[[Any], Any]] = [str, repr, lambda v: [v], lambda v: {"type": v}, bool, lambda v: float(v) if _number(v) else None]
    holder[key] = ways[what % len(ways)](value)


def _scale(tree: Tree, where: int, what: int) -> None:
    numbers = [(holder, key) for holder, key in _places(tree) if _number(holder[key])]
    if numbers:
        holder, key = numbers[where % len(numbers)]
        holder[key] = [holder[key] * 10 ** (what % 20), -holder[key], holder[key] + 1, holder[key] - 1, holder[key] / 3][what % 5]


def _nest(tree: Tree, where: int, what: int) -> None:
    holder, key = _place(tree, where)
    for _ in range(what % 60):
        holder[key] = [holder[key]] if what % 2 else {"type": holder[key]}


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


JSON_CHANGES = [_extreme, _extreme, _remove, _insert, _rename, _swap, _retype, _scale, _scale, _nest]


def change_json(tree: Tree, number: int, where: int, what: int) -> None:
    """Change a parsed file in place."""
    JSON_CHANGES[number % len(JSON_CHANGES)](tree, where, what)


# ---- text -------------------------------------------------------------------------------------------------------------------


def _flip(data: bytes, where: int, what: int) -> bytes:
    return data[:where] + bytes([data[where] ^ (1 << what % 8)]) + data[where + 1 :]


def _replace(data: bytes, where: int, what: int) -> bytes:
    return data[:where] + bytes([what % 256]) + data[where + 1 :]


def _put(data: bytes, where: int, what: int) -> bytes:
    return data[:where] + _SNIPPETS[what % len(_SNIPPETS)] + data[where:]


def _overwrite(data: bytes, where: int, what: int) -> bytes:
    snippet = _SNIPPETS[what % len(_SNIPPETS)]
    return data[:where] + snippet + data[where + len(snippet) :]


def _cut(data: bytes, where: int, what: int) -> bytes:
    return data[:where] + data[where + what % 50 :]


def _end(data: bytes, where: int, what: int) -> bytes:
    return data[:where]


def _double(data: bytes, where: int, what: int) -> bytes:
    """Repeat a line, and with it its key."""
    start = data.rfind(b"\n", 0, where) + 1
    stop = data.find(b"\n", where) + 1 or len(data)
    return data[:stop] + data[start:stop] * (1 + what % 2) + data[stop:]


def _repeat(data: bytes, where: int, what: int) -> bytes:
    piece = data[where : where + 1 + what % 80]
    return data[:where] + piece * (2 + what % 5) + data[where:]


TEXT_CHANGES = [_flip, _replace, _put, _put, _overwrite, _cut, _end, _double, _repeat]


def change_text(data: bytes, number: int, where: int, what: int) -> bytes:
    """Change bytes."""
    return TEXT_CHANGES[number % len(TEXT_CHANGES)](data, where % len(data), what) if data else data


# ---- tensors ----------------------------------------------------------------------------------------------------------------

BODIES = ["kept", "longer", "shorter", "flipped", "exponent", "length"]


def change_tensors(data: bytes, changes: list[tuple[bool, int, int, int]], body: str, what: int) -> bytes:
    """A safetensors file with its header changed, as a tree or as text, and something done to its numbers or its length."""
    size = int.from_bytes(data[:8], "little")
    header, numbers = data[8 : 8 + size], data[8 + size :]
    for structured, number, where, choice in changes:
        header = _change_header(header, structured, number, where, choice)
    size = len(header)
    if body == "longer":
        numbers += b"\0" * (1 + what % 1000)
    elif body == "shorter":
        numbers = numbers[: -(1 + what % 100)]
    elif body == "flipped":
        numbers = change_text(numbers, 0, what, what >> 8)
    elif body == "exponent":
        at = what % len(numbers) // 4 * 4
        numbers = numbers[:at] + [b"\0\0\x80\x7f", b"\0\0\xc0\x7f", b"\xff\xff\x7f\x7f", b"\1\0\0\0"][what % 4] + numbers[at + 4 :]
    elif body == "length":
        size = [size + 1, max(size - 1, 0), 0, 2**40, 2**64 - 1, size // 2, len(header) + len(numbers)][what % 7]
    return size.to_bytes(8, "little") + header + numbers


def _change_header(header: bytes, structured: bool, number: int, where: int, choice: int) -> bytes:
    if not structured:
        return change_text(header, number, where, choice)
    try:
        tree = json.loads(header)
    except (ValueError, RecursionError):
        return header
    if not isinstance(tree, dict):
        return header
    change_json(tree, number, where, choice)
    return dumped(tree)


def dumped(tree: Tree) -> bytes:
    """JSON as a careless or malicious writer makes it: NaN, infinity and halves of surrogate pairs included."""
    return json.dumps(tree, indent=1).encode()
