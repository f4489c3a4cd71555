"""Arrays from a stranger: .npz archives whose members, types and sizes are known before anything expands; nothing is unpickled.

np.load would believe an archive that 0.4 MB become 400 MB (hub.md 4.2), and read the directory of a million members first.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dreamgym.errors import InvalidModelError
from dreamgym.formats.strict_json import escape, quote

__all__ = ["ArrayType", "check_looks", "read_arrays", "write_arrays"]

_MAX_HEADER = 1024  # bytes of a member before its numbers; numpy writes 128
_MAX_DIRECTORY = 64 * 1024
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    r"\{'descr': '(?P<kind>[<>|][A-Za-z]\d{0,9})', 'fortran_order': (?P<fortran>True|False), 'shape': \((?P<shape>[\d, ]{0,200})\), \}\s*",
    re.ASCII,
)
_END, _ZIP64_LOCATOR = b"PK\x05\x06", b"PK\x06\x07"
_END_SIZE, _LOCATOR_SIZE = 22, 20


@dataclass(frozen=True)
class ArrayType:
    """What an array must be; shape in full."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return self.dtype.itemsize * math.prod(self.shape)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz that np.load reads, too. Equal arrays make equal bytes: members bear no date."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for name, values in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=values.nbytes >= 2**31) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)


def read_arrays(data: bytes, wanted: Mapping[str, ArrayType], where: str) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz that holds exactly those wanted, C-ordered; read-only. Raises InvalidModelError, whatever the bytes."""
    _check_directory(data, len(wanted), where)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = _checked_members(archive.infolist(), wanted, where)
            return {name: _read_member(archive, members[name], kind, f"{where}: array {quote(name)}") for name, kind in wanted.items()}
    except InvalidModelError:
        raise
    # zipfile raises all of these on archives that make no sense.
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, LookupError, RuntimeError) as error:
        raise InvalidModelError(f"{where}: not a consistent .npz archive ({escape(str(error))})") from error


def check_looks(data: bytes, where: str) -> None:
    """Say what a file is that git left in place of an archive; more helpful than a size that differs."""
    if data.startswith(b"version https://git-lfs"):
        raise InvalidModelError(f"{where}: not an .npz archive but a Git LFS pointer; fetch the content with: git lfs pull")


def _check_directory(data: bytes, count: int, where: str) -> None:
    """Look at the end of the archive before zipfile reads a directory of any length."""
    end = data[-_END_SIZE:]
    check_looks(data, where)
    if len(end) < _END_SIZE or not end.startswith(_END) or not data.startswith(b"PK\x03\x04"):
        raise InvalidModelError(f"{where}: not an .npz archive, or cut off, or with something behind its end")
    if data[-_END_SIZE - _LOCATOR_SIZE :].startswith(_ZIP64_LOCATOR):
        raise InvalidModelError(f"{where}: a zip64 directory, which {count} arrays do not need")
    members, size = int.from_bytes(end[10:12], "little"), int.from_bytes(end[12:16], "little")
    if members != count or size > _MAX_DIRECTORY:
        raise InvalidModelError(f"{where}: an archive of {members} members and {size} bytes of directory; expected {count} arrays")


def _checked_members(found: list[zipfile.ZipInfo], wanted: Mapping[str, ArrayType], where: str) -> dict[str, zipfile.ZipInfo]:
    names, expected = sorted(member.filename for member in found), sorted(f"{name}.npy" for name in wanted)
    if names != expected:
        raise InvalidModelError(f"{where}: holds {quote(names)}; expected {', '.join(expected)}")
    members = {member.filename.removesuffix(".npy"): member for member in found}
    for name, member in members.items():
        nbytes = wanted[name].nbytes
        if not nbytes < member.file_size <= nbytes + _MAX_HEADER:
            raise InvalidModelError(f"{where}: array {quote(name)} expands to {member.file_size} bytes; expected {nbytes} and a header")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
            raise InvalidModelError(f"{where}: array {quote(name)} is encrypted or compressed in another way than deflate")
    return members


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, wanted: ArrayType, where: str) -> NDArray[Any]:
    with archive.open(member) as stream:
        _check_header(stream, wanted, where)
        numbers = stream.read(wanted.nbytes)
        if len(numbers) != wanted.nbytes or stream.read(1):
            raise InvalidModelError(f"{where} has other than {wanted.nbytes} bytes of numbers")
    if wanted.dtype == np.bool_ and numbers.strip(b"\0\1"):
        raise InvalidModelError(f"{where} holds flags that are neither true nor false")
    return np.frombuffer(numbers, wanted.dtype).reshape(wanted.shape)


def _check_header(stream: IO[bytes], wanted: ArrayType, where: str) -> None:
    """Read the header of a .npy by its pattern: numpy would hand the stranger's text to Python's own parser."""
    start = stream.read(len(_MAGIC) + 2)
    size = int.from_bytes(start[-2:], "little")
    if not start.startswith(_MAGIC) or size > _MAX_HEADER:
        raise InvalidModelError(f"{where} is no .npy of version 1.0 with a header of at most {_MAX_HEADER} bytes")
    text = stream.read(size).decode("latin1")
    header = _HEADER.fullmatch(text)
    if header is None:
        raise InvalidModelError(f"{where} has the header {quote(text.rstrip())}, which numpy does not write of numbers")
    kind, fortran, shape = header["kind"], header["fortran"] == "True", tuple(map(int, header["shape"].replace(",", " ").split()))
    if "O" in kind:
        raise InvalidModelError(f"{where} holds pickled objects, which dreamgym does not load")
    if kind != wanted.dtype.str or shape != wanted.shape or (fortran and len(shape) > 1):
        order = " in Fortran's order" if fortran else ""
        raise InvalidModelError(f"{where} is {kind}{list(shape)}{order}; expected {wanted.dtype.str}{list(wanted.shape)}")
