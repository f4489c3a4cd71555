"""Where a replay's rows lie: in memory, or in raw files that survive a kill in mid-write.

A folder holds `layout.json` (shapes), `obs.bin` and `rows.bin` (raw rows, no pickles) and `commits.jsonl`, one line per episode
with its checksums. An episode exists once its line is complete, and the line is written only after the data has reached the disk.
"""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Commit", "FolderStorage", "Layout", "MemoryStorage", "Storage"]

_FORMAT = 1


@dataclass(frozen=True)
class Layout:
    """Shapes of one row. A Dict observation is one record, of shape (), whose fields are its parts: (name, dtype, shape)."""

    obs_shape: tuple[int, ...]
    obs_dtype: str | tuple[tuple[str, str, tuple[int, ...]], ...]
    action_size: int

    @property
    def obs_type(self) -> np.dtype[Any]:
        """The type of an element of obs [N,...]."""
        return np.dtype(self.obs_dtype) if isinstance(self.obs_dtype, str) else np.dtype(list(self.obs_dtype), align=True)

    @property
    def row_dtype(self) -> np.dtype[Any]:
        """Everything of a row but its observation, packed."""
        flags = [(name, "?") for name in ("is_first", "is_last", "is_terminal", "valid")]
        return np.dtype([("prev_action", "<f4", (self.action_size,)), ("reward", "<f4"), *flags])


@dataclass(frozen=True)
class Commit:
    """One stored episode: its rows [start, stop), who acted, and checksums of its bytes."""

    start: int
    stop: int
    policy: str
    obs_crc: int = 0
    rows_crc: int = 0


class Storage(Protocol):
    """Rows in order of arrival; obs [N,...] and rows [N] (of Layout.row_dtype) are read-only views of all of them."""

    @property
    def obs(self) -> NDArray[Any]:
        """[N,...]."""

    @property
    def rows(self) -> NDArray[Any]:
        """[N] of Layout.row_dtype."""

    @property
    def commits(self) -> list[Commit]:
        """The episodes, in order."""

    def append(self, obs: NDArray[Any], rows: NDArray[Any], policy: str) -> None:
        """Add one episode."""

    def keep(self, episodes: int) -> None:
        """Forget all but the first episodes."""


class MemoryStorage:
    """Rows in arrays that double when full."""

    def __init__(self, layout: Layout) -> None:
        self.commits: list[Commit] = []
        self._obs = np.empty((0, *layout.obs_shape), layout.obs_type)
        self._rows = np.empty(0, layout.row_dtype)

    @property
    def obs(self) -> NDArray[Any]:
        """[N,...]."""
        return _read_only(self._obs[: _stop(self.commits)])

    @property
    def rows(self) -> NDArray[Any]:
        """[N] of Layout.row_dtype."""
        return _read_only(self._rows[: _stop(self.commits)])

    def append(self, obs: NDArray[Any], rows: NDArray[Any], policy: str) -> None:
        """Add one episode."""
        start = _stop(self.commits)
        stop = start + len(rows)
        self._obs, self._rows = _grown(self._obs, start, stop), _grown(self._rows, start, stop)
        self._obs[start:stop], self._rows[start:stop] = obs, rows
        self.commits.append(Commit(start, stop, policy))

    def keep(self, episodes: int) -> None:
        """Forget all but the first episodes."""
        del self.commits[episodes:]


class FolderStorage:
    """Rows in memory-mapped files. Opening changes nothing on disk; the next write overwrites a torn tail.

    Arrays taken from it are valid until the next `append` or `keep`.
    """

    def __init__(self, layout: Layout, folder: Path) -> None:
        self._folder = Path(folder)
        self._layout = layout
        self._folder.mkdir(parents=True, exist_ok=True)
        self._check_layout()
        self.commits: list[Commit] = []
        self._lines: list[bytes] = []
        self._maps: tuple[NDArray[Any], NDArray[Any]] | None = None
        self._log_size, torn = self._read_log()
        torn += self._drop_damaged()
        if torn:
            warnings.warn(
                f"replay in {self._folder}: dropped {', '.join(torn)}, left by a write that did not finish; "
                f"{len(self.commits)} episodes before are intact.",
                RuntimeWarning,
                stacklevel=3,
            )

    @property
    def obs(self) -> NDArray[Any]:
        """[N,...]."""
        return self._mapped()[0]

    @property
    def rows(self) -> NDArray[Any]:
        """[N] of Layout.row_dtype."""
        return self._mapped()[1]

    def append(self, obs: NDArray[Any], rows: NDArray[Any], policy: str) -> None:
        """Add one episode: data first, flushed to the disk, then the commit. Raises RuntimeError if another process writes here."""
        self._check_sole_writer()
        start = _stop(self.commits)
        obs_bytes, row_bytes = np.ascontiguousarray(obs).tobytes(), np.ascontiguousarray(rows).tobytes()
        obs_row, row = self._row_bytes()
        _write_at(self._folder / "obs.bin", start * obs_row, obs_bytes)
        _write_at(self._folder / "rows.bin", start * row, row_bytes)
        commit = Commit(start, start + len(rows), policy, zlib.crc32(obs_bytes), zlib.crc32(row_bytes))
        line = _to_line(commit)
        self._log_size = _write_at(self._log, sum(map(len, self._lines)), line)
        self.commits.append(commit)
        self._lines.append(line)
        self._maps = None

    def keep(self, episodes: int) -> None:
        """Forget all but the first episodes."""
        self._check_sole_writer()
        del self.commits[episodes:], self._lines[episodes:]
        self._maps = None
        self._log_size = _write_at(self._log, sum(map(len, self._lines)), b"")
        for name, row in zip(("obs.bin", "rows.bin"), self._row_bytes()):
            _write_at(self._folder / name, _stop(self.commits) * row, b"")

    @property
    def _log(self) -> Path:
        return self._folder / "commits.jsonl"

    def _row_bytes(self) -> tuple[int, int]:
        layout = self._layout
        return int(np.prod(layout.obs_shape)) * layout.obs_type.itemsize, layout.row_dtype.itemsize

    def _mapped(self) -> tuple[NDArray[Any], NDArray[Any]]:
        if self._maps is None:
            stop, layout = _stop(self.commits), self._layout
            self._maps = (
                _map(self._folder / "obs.bin", layout.obs_type, (stop, *layout.obs_shape)),
                _map(self._folder / "rows.bin", layout.row_dtype, (stop,)),
            )
        return self._maps

    def _check_layout(self) -> None:
        path = self._folder / "layout.json"
        mine = {"format": _FORMAT, **json.loads(json.dumps(asdict(self._layout)))}
        if path.exists():
            its = json.loads(path.read_text())
            if its != mine:
                raise ValueError(f"replay in {self._folder} holds {its} but this spec needs {mine}; choose another folder.")
        else:
            draft = path.with_suffix(".tmp")
            draft.write_text(json.dumps(mine))
            os.replace(draft, path)

    def _check_sole_writer(self) -> None:
        size = self._log.stat().st_size if self._log.exists() else 0
        if size != self._log_size:
            raise RuntimeError(f"another process has written to the replay in {self._folder}; only one may, so open it anew.")

    def _read_log(self) -> tuple[int, list[str]]:
        """Fill commits; returns the log's size in bytes and what was torn."""
        content = self._log.read_bytes() if self._log.exists() else b""
        lines = content.splitlines(keepends=True)
        commits = [_from_line(line) for line in lines]
        for number, commit in enumerate(commits):
            if commit is None or commit.start != _stop(self.commits):
                self._refuse_damage_before(any(commits[number + 1 :]), f"line {number + 1} of {self._log}")
                return len(content), [f"an incomplete line of {self._log.name}"]
            self.commits.append(commit)
            self._lines.append(lines[number])
        return len(content), []

    def _drop_damaged(self) -> list[str]:
        """Forget damaged episodes at the end; returns what was torn."""
        intact = list(self._intact())
        good = intact.index(False) if False in intact else len(intact)
        if good < len(intact):
            self._refuse_damage_before(any(intact[good:]), f"episode {good} in {self._folder}")
            lost = self.commits[-1].stop - self.commits[good].start
            del self.commits[good:], self._lines[good:]
            return [f"{len(intact) - good} damaged episodes ({lost} rows) at the end"]
        torn = []
        for name, row in zip(("obs.bin", "rows.bin"), self._row_bytes()):
            path = self._folder / name
            if path.exists() and path.stat().st_size > _stop(self.commits) * row:
                torn.append(f"unfinished rows in {name}")
        return torn

    def _intact(self) -> Iterator[bool]:
        if not self.commits:
            return
        files = []
        for name, row in zip(("obs.bin", "rows.bin"), self._row_bytes()):
            path = self._folder / name
            size = path.stat().st_size if path.exists() else 0
            files.append((row, _map(path, np.dtype(np.uint8), (size,))))
        for commit in self.commits:
            parts = [content[commit.start * row : commit.stop * row] for row, content in files]
            yield [zlib.crc32(part.data) for part in parts] == [commit.obs_crc, commit.rows_crc]  # a part cut short differs too

    def _refuse_damage_before(self, more_follows: bool, where: str) -> None:
        if more_follows:
            raise ValueError(f"{where} is damaged, but intact data follows, so this is no torn write; restore the folder from a copy.")


def _stop(commits: list[Commit]) -> int:
    return commits[-1].stop if commits else 0


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _grown(array: NDArray[Any], used: int, needed: int) -> NDArray[Any]:
    if needed <= len(array):
        return array
    larger = np.empty((max(needed, 2 * len(array), 1024), *array.shape[1:]), array.dtype)
    larger[:used] = array[:used]
    return larger


def _map(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if 0 in shape:  # an empty file cannot be mapped
        return _read_only(np.empty(shape, dtype))
    return np.asarray(np.memmap(path, dtype, mode="r", shape=shape))


def _write_at(path: Path, offset: int, content: bytes) -> int:
    """Replace all from `offset` on, see it onto the disk, and return the file's new size."""
    with open(path, "r+b" if path.exists() else "xb") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return offset + len(content)


def _to_line(commit: Commit) -> bytes:
    body = json.dumps(asdict(commit)).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _from_line(line: bytes) -> Commit | None:
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    return Commit(**json.loads(body))
