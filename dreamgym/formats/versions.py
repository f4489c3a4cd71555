"""Which format a description is in, and whether this dreamgym can read it."""

from __future__ import annotations

from typing import Any

from dreamgym.errors import IncompatibleModelError
from dreamgym.formats.strict_json import quote

__all__ = ["check_format"]


def check_format(
    value: dict[str, Any],
    where: str,
    *,
    format: str,
    newest: int,
    what: str,
    kind: str,
    reader: str = "this dreamgym",
    error: type[Exception] = IncompatibleModelError,
) -> None:
    """Raise `error` unless a description bears the `format` in a version from 1 to `newest`.

    what: what it should be, "world model"; kind: what formats of it are called, "model"; reader: who reads up to the newest.
    """
    if value.get("format") != format:
        raise error(f"{where}: not a dreamgym {what}; its format is {quote(value.get('format'))}, expected '{format}'")
    version = value.get("format_version")
    if type(version) is int and version > newest:
        raise error(f"{where}: saved with {kind} format {version}; {reader} reads up to {newest}. Run: pip install -U dreamgym")
    if type(version) is not int or version < 1:
        raise error(f"{where}: format_version is {quote(version)}; expected an integer from 1 to {newest}")
