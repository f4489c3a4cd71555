"""Files of a model folder: read only if they are plain files of the announced size, replaced only as a complete set."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dreamgym.errors import InvalidModelError, ModelNotFoundError
from dreamgym.formats.strict_json import escape

__all__ = ["FileSet", "Fingerprint", "found_pickles", "lies_at", "read_regular", "replace_files", "sha256"]

_MAX_SIZE = 2 * 1024**3
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".zip")
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def lies_at(path: Path) -> bool:
    """Whether something is there; nothing is where a stranger's text is no path (too long, or with a NUL byte)."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class Fingerprint:
    """What a description says of a file beside it, by which a damaged or replaced one is known."""

    sha256: str  # lower-case hexadecimal
    size: int  # bytes

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 is {self.sha256!r}; expected 64 lower-case hexadecimal digits")
        if not 1 <= self.size <= _MAX_SIZE:
            raise ValueError(f"size is {self.size}; expected 1 to {_MAX_SIZE} bytes")

    @classmethod
    def of(cls, data: bytes) -> Fingerprint:
        """That of these bytes."""
        return cls(sha256(data), len(data))

    def check(self, data: bytes, where: str, announcer: str) -> None:
        """Raise InvalidModelError unless these are the bytes; announcer is the description's name."""
        if len(data) != self.size:
            fact = "truncated" if len(data) < self.size else "too long"
            raise InvalidModelError(f"{where}: {fact}: {len(data)} bytes, but {announcer} announces {self.size}")
        if (found := sha256(data)) != self.sha256:
            raise InvalidModelError(f"{where}: damaged or replaced: sha256 is {found}, but {announcer} announces {self.sha256}")


@dataclass(frozen=True)
class FileSet:
    """The named files of one model or agent: in a folder, or in the Hub's cache, where they bear other names.

    shown is what messages call the place. paths says where each file really lies, links resolved; None: in `folder`, under its name.
    what is what the place should hold.
    """

    folder: Path
    shown: str
    paths: Mapping[str, Path] | None = None
    what: str = "model"

    @classmethod
    def of(cls, folder: Path, what: str = "model") -> FileSet:
        """The files of a folder."""
        return cls(folder, escape(str(folder)), None, what)

    def where(self, name: str) -> str:
        """What messages call a file."""
        return f"{self.shown}/{name}"

    def read(self, name: str, *, limit: int) -> bytes:
        """Read a file, by a constant name of ours, if it is a plain file of at most `limit` bytes.

        Raises ModelNotFoundError if nothing of the kind is there, InvalidModelError for links, pipes, devices and oversize.
        """
        path, where = self._path(name), self.where(name)
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ModelNotFoundError(self._absence(name)) from error
        except PermissionError:
            raise
        except (OSError, ValueError) as error:  # a name too long for the system, or with a NUL byte
            raise ModelNotFoundError(f"{self.shown}: not a usable path ({escape(str(error))})") from error
        # A link could point anywhere on this machine, and opening a pipe would wait for ever: look before opening.
        if not stat.S_ISREG(status.st_mode):
            raise InvalidModelError(f"{where}: not a regular file; links, pipes and devices are refused")
        if status.st_size > limit:
            raise InvalidModelError(f"{where}: {status.st_size} bytes; the limit is {limit}")
        try:
            descriptor = os.open(path, _OPEN_FLAGS)
        except OSError as error:
            raise InvalidModelError(f"{where}: cannot be opened ({error.strerror})") from error
        with open(descriptor, "rb") as file:
            opened = os.fstat(descriptor)
            if not stat.S_ISREG(opened.st_mode) or opened.st_size > limit:
                raise InvalidModelError(f"{where}: another file than a moment ago")
            data = file.read(opened.st_size + 1)  # Python makes room for as many as are asked for, so never ask for the limit
        if len(data) != opened.st_size:
            raise InvalidModelError(f"{where}: changed while it was read")
        return data

    def found_pickles(self) -> str:
        """A remark on files that look like the pickles other libraries save; empty if there are none, or in the Hub's cache."""
        return "" if self.paths is not None else found_pickles(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / name if self.paths is None else self.paths.get(name, self.folder / name)

    def _absence(self, name: str) -> str:
        if self.paths is None and not lies_at(self.folder):
            return f"{self.shown}: no such folder; expected a saved dreamgym {self.what}"
        if self.paths is None and not self.folder.is_dir():
            return f"{self.shown}: not a folder; expected a saved dreamgym {self.what}"
        return f"{self.shown}: not a dreamgym {self.what}, it has no {name}"


def read_regular(folder: Path, name: str, *, limit: int) -> bytes:
    """Read `folder/name`, a constant name of ours, if it is a plain file of at most `limit` bytes; raises as `FileSet.read`."""
    return FileSet.of(folder).read(name, limit=limit)


def found_pickles(folder: Path) -> str:
    """A remark on files that look like the pickles other libraries save; empty if there are none."""
    found = sorted(escape(entry.name) for entry in folder.iterdir() if entry.suffix in _PICKLES) if folder.is_dir() else []
    return f"(found {', '.join(found[:5])}; dreamgym does not load pickle files)" if found else ""


def replace_files(folder: Path, contents: dict[str, bytes]) -> None:
    """Write all files beside `folder`'s, then swap them in one after the other; readers see whole files only.

    The last name is the one that vouches for the others, so an interrupted first save leaves no model rather than half of one.
    Ctrl-C during the swap finishes it first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as staging:
        moves = [(Path(staging, name), folder / name) for name in contents]
        for (staged, _), data in zip(moves, contents.values()):
            with open(staged, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        try:
            _swap(moves)
        except KeyboardInterrupt:
            _swap(moves)
            raise


def _swap(moves: list[tuple[Path, Path]]) -> None:
    for staged, final in moves:
        if staged.exists():
            os.replace(staged, final)
