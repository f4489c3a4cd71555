"""Arrays out of a stranger's HDF5 file: only plain ones that lie in the file itself, and none before its size is known.

HDF5 can point into other files (links, external storage, virtual datasets), name compression plugins to load, and announce terabytes
of zeros in a kilobyte; h5py follows all of it.
"""

from __future__ import annotations

import io
import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamgym.errors import DreamGymError, InvalidDataError, ModelNotFoundError, require
from dreamgym.formats.strict_json import escape

__all__ = ["Allowance", "Node", "open_file"]

_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}  # those inside h5py; others would be loaded from plugins
_MAX_JPEG_HEADERS = 64 * 1024  # bytes of a picture beyond those of its pixels


class Allowance:
    """Bytes that may yet be read."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    def spend(self, amount: int, where: str) -> None:
        """Raise InvalidDataError if that is more than is left."""
        self.left -= amount
        if self.left < 0:
            raise InvalidDataError(f"{where}: the rows take more than {self.most} bytes, the limit, which max_bytes= raises")


class Node:
    """A group of the file, seen through checks; where is what messages call it."""

    def __init__(self, group: Any, where: str) -> None:
        self._group, self.where = group, where

    def has(self, name: str) -> bool:
        """Whether anything bears that name."""
        with _libhdf5(self.where):
            return name in self._group

    def group(self, name: str) -> Node:
        """A group inside. Raises InvalidDataError if it is missing or lies elsewhere."""
        where = self._where(name)
        with _libhdf5(where):
            return Node(self._inside(name, "Group", where), where)

    def text(self, name: str, most: int) -> str:
        """A text attribute of at most `most` characters; empty if there is none of the kind."""
        with _libhdf5(self.where):
            value = self._group.attrs.get(name, "")
        return value if isinstance(value, str) and len(value) <= most else ""

    def rows(self, name: str) -> int:
        """Length of an array, which is not read. Raises InvalidDataError."""
        where = self._where(name)
        with _libhdf5(where):
            return len(self._plain_dataset(name, where))

    def array(self, name: str, allowance: Allowance, *, shape: tuple[int | None, ...], kinds: str) -> NDArray[Any]:
        """A whole array of numbers; None in `shape` fits any length, `kinds` are numpy's letters. Raises InvalidDataError."""
        where = self._where(name)
        with _libhdf5(where):
            dataset = self._plain_dataset(name, where)
            found = tuple(dataset.shape or ())
            if len(found) != len(shape) or any(wanted not in (None, size) for size, wanted in zip(found, shape)):
                wanted = str(shape).replace("None", "any")
                raise InvalidDataError(f"{where}: shape is {found}; expected {wanted}")
            if dataset.dtype.kind not in kinds:
                raise InvalidDataError(f"{where}: dtype is {escape(str(dataset.dtype))}; expected one of the kinds {', '.join(kinds)}")
            allowance.spend(math.prod(found) * dataset.dtype.itemsize, where)
            return np.asarray(dataset[()])

    def pictures(self, name: str, allowance: Allowance, *, rows: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Images uint8 [rows, *shape], raw or as JPEG, which is what Minari makes of them. Raises InvalidDataError."""
        where = self._where(name)
        with _libhdf5(where):
            dataset = self._plain_dataset(name, where)
            if not _holds_bytes(dataset):
                return self.array(name, allowance, shape=(rows, *shape), kinds="u").astype(np.uint8, casting="equiv")
            if len(dataset) != rows:
                raise InvalidDataError(f"{where}: {len(dataset)} JPEG images; expected {rows}")
            allowance.spend(rows * math.prod(shape), where)
            images = np.empty((rows, *shape), np.uint8)
            for row in range(rows):  # one by one: many rows may share one heap of bytes
                images[row] = _decoded(np.asarray(dataset[row], np.uint8), shape, f"{where} at row {row}")
            return images

    def _where(self, name: str) -> str:
        return f"{self.where}/{escape(name)}"

    def _plain_dataset(self, name: str, where: str) -> Any:
        dataset = self._inside(name, "Dataset", where)
        made = dataset.id.get_create_plist()
        if dataset.is_virtual or made.get_external_count():
            raise InvalidDataError(f"{where}: its numbers lie in other files, which are not opened")
        filters = {made.get_filter(number)[0] for number in range(made.get_nfilters())}
        if not filters <= set(_FILTERS):
            raise InvalidDataError(f"{where}: needs the compression plugins {sorted(filters - set(_FILTERS))}, and none is loaded")
        return dataset

    def _inside(self, name: str, kind: str, where: str) -> Any:
        h5py = _h5py()
        link = self._group.get(name, getlink=True)
        if link is None:
            raise InvalidDataError(f"{where}: missing")
        if not isinstance(link, h5py.HardLink):
            raise InvalidDataError(f"{where}: a {type(link).__name__}, which could lead to another file; links are not followed")
        found = self._group[name]
        if not isinstance(found, getattr(h5py, kind)):
            raise InvalidDataError(f"{where}: a {type(found).__name__}; expected a {kind}")
        return found


@contextmanager
def open_file(path: Path) -> Iterator[Node]:
    """The root of an HDF5 file. Raises ModelNotFoundError, InvalidDataError for what is none, MissingDependencyError."""
    h5py, where = _h5py(), escape(str(path))
    try:
        status = path.lstat()
    except OSError as error:
        raise ModelNotFoundError(f"{where}: no such file") from error
    if not stat.S_ISREG(status.st_mode):
        raise InvalidDataError(f"{where}: not a regular file; links, pipes and devices are refused")
    with _libhdf5(where):
        file = h5py.File(path, "r")
    with file:
        yield Node(file, where)


def _h5py() -> Any:
    return require("h5py", extra="minari", purpose="reading a Minari dataset")


@contextmanager
def _libhdf5(where: str) -> Iterator[None]:
    """Whatever h5py raises where the file is damaged or forged, as one error."""
    try:
        yield
    except DreamGymError:
        raise
    except (OSError, LookupError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise InvalidDataError(f"{where}: not consistent HDF5 ({escape(str(error))})") from error


def _holds_bytes(dataset: Any) -> bool:
    """Whether each row is a file: bytes of one length, or of its own."""
    if dataset.ndim == 2:
        return bool(dataset.dtype == np.uint8)
    return bool(dataset.ndim == 1 and _h5py().check_vlen_dtype(dataset.dtype) == np.uint8)


def _decoded(data: NDArray[np.uint8], shape: tuple[int, ...], where: str) -> NDArray[np.uint8]:
    """One JPEG of exactly `shape`, which its header must say before a pixel is made."""
    pillow = require("PIL.Image", extra="minari", purpose="reading JPEG images")
    most = 2 * math.prod(shape) + _MAX_JPEG_HEADERS
    if data.nbytes > most:
        raise InvalidDataError(f"{where}: a JPEG of {data.nbytes} bytes; the limit is {most}")
    try:
        with pillow.open(io.BytesIO(data.tobytes()), formats=["JPEG"]) as image:
            mode = "RGB" if shape[2:] == (3,) else "L"
            if (image.height, image.width) != shape[:2] or image.mode != mode:
                raise ValueError(f"{image.width}x{image.height} {image.mode}; expected {shape[1]}x{shape[0]} {mode}")
            return np.asarray(image).reshape(shape)
    except Exception as error:  # Pillow's decoders raise of every kind
        raise InvalidDataError(f"{where}: not a JPEG that fits ({escape(str(error))})") from error
