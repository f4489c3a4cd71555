"""Markdown in which strangers' text stays text: it cannot leave its line or table cell, nor become HTML, a link, a picture or a mention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dreamgym.formats.strict_json import escape

__all__ = ["code", "decimal", "integer", "known", "number", "part", "plain", "plural", "table", "words"]

_MISSING = "–"
_LARGEST = 1e300  # beyond it sums and formats overflow
_PROSE = 1000  # characters of one text
_PIECE = 100  # escape cuts at 200
# What Markdown, HTML and the Hub's additions (mathematics, mentions) would read as more than a character.
_MARKED = str.maketrans({**{mark: f"\\{mark}" for mark in "\\`*_[]~|"}, "<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;", "$": "&#36;"})
_LINKED = {"://": "&#58;//", "www.": "www&#46;"}  # an address would become a link without any brackets


def plain(text: str) -> str:
    """Untrusted prose for the middle of a line or a table cell: of bounded length, every mark of Markdown and HTML disarmed."""
    pieces = [text[start : start + _PIECE] for start in range(0, min(len(text), _PROSE), _PIECE)]
    shown = "".join(map(escape, pieces)).translate(_MARKED) + ("..." if len(text) > _PROSE else "")
    for mark, disarmed in _LINKED.items():
        shown = shown.replace(mark, disarmed)
    return shown.strip() or _MISSING


def code(text: str) -> str:
    """Untrusted text as a code span that fits into a table cell: backticks and bars, which would end those, are shown as others."""
    shown = escape(text).replace("`", "'").replace("|", "¦").strip()
    return f"`{shown}`" if shown else _MISSING


def table(head: Sequence[str], rows: Sequence[Sequence[str | None]]) -> list[str]:
    """Lines of a Markdown table; None is a cell of which nothing is known, a column of nothing else is left out. No rows, no lines.

    The first column and those without a heading are aligned left, numbers right.
    """
    if not rows:
        return []
    kept = [index for index in range(len(head)) if any(row[index] is not None for row in rows)]
    lines = [[head[index] for index in kept], ["---" if index == 0 or not head[index] else "---:" for index in kept]]
    lines += [[_MISSING if row[index] is None else str(row[index]) for index in kept] for row in rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def known(rows: Sequence[Sequence[str | None]]) -> list[Sequence[str | None]]:
    """The rows of a table that say more than the name in their first cell."""
    return [row for row in rows if any(cell is not None for cell in row[1:])]


def part(value: Any, *keys: str) -> dict[str, Any]:
    """The object under `keys` of nested JSON; an empty one where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def number(value: Any, *keys: str) -> float | int | None:
    """The finite number under `keys` of nested JSON; None where there is something else or nothing."""
    found = part(value, *keys[:-1]).get(keys[-1]) if keys else value
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return None
    return found if -_LARGEST < found < _LARGEST else None  # so neither is NaN


def words(value: Any, *keys: str) -> str | None:
    """The text under `keys` of nested JSON; None where there is something else, nothing, or only spaces."""
    found = part(value, *keys[:-1]).get(keys[-1])
    return found if isinstance(found, str) and found.strip() else None


def decimal(value: float | None, digits: int = 4) -> str | None:
    """A measured number to some significant digits; None stays None."""
    if value is None:
        return None
    return f"{value:,.0f}" if 10**digits <= abs(value) < 1e15 else f"{value:.{digits}g}"


def integer(value: float | None) -> str | None:
    """A count; None stays None."""
    return None if value is None else f"{value:,.0f}"


def plural(value: float, noun: str) -> str:
    """A count and what is counted."""
    return f"{value:,.0f} {noun}" if value == 1 else f"{value:,.0f} {noun}s"
