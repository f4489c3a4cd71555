"""What a process does that opening data has no reason to do: an audit hook that writes it down."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["Watch"]

_PROCESSES = ("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "pty.", "ctypes.", "os.kill")
_CODE = ("pickle.find_class", "code.__new__", "os.putenv")
# Event -> where in its arguments paths stand, and the descriptors of the folders that they are relative to (None: the working folder).
_CHANGES: dict[str, list[tuple[int, int | None]]] = {
    **{f"os.{name}": [(0, 1)] for name in ("remove", "rmdir")},
    **{f"os.{name}": [(0, 2)] for name in ("mkdir", "chmod")},
    **{f"os.{name}": [(0, 3)] for name in ("chown", "utime")},
    **{f"os.{name}": [(0, 2), (1, 3)] for name in ("rename", "link")},
    **{f"os.{name}": [(0, None)] for name in ("truncate", "chdir", "setxattr", "removexattr")},
    **{f"shutil.{name}": [(0, None)] for name in ("rmtree", "unpack_archive")},
    **{f"shutil.{name}": [(1, None)] for name in ("move", "copyfile", "copytree")},
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_HARMLESS = ("/dev/null", "/dev/urandom", "/proc/self", "/proc/sys/vm", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu")


class Watch:
    """Remembers, from when it is started, every event that is not of the allowed kinds.

    writable, readable: folders that may be written to, or read. modules: names of packages that may be imported, besides Python's own.
    ports: those on this machine that may be connected to. Reading what belongs to Python, its packages or dreamgym is allowed.
    """

    def __init__(self, *, writable: Iterable[str], readable: Iterable[str], modules: Iterable[str], ports: Iterable[int]) -> None:
        self.seen: list[str] = []
        self.sought: set[str] = set()  # names of modules
        self._writable = tuple(map(os.path.realpath, writable))
        ours = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[3]))
        self._code = tuple(map(os.path.realpath, ours))
        self._readable = (*self._writable, *self._code, *map(os.path.realpath, (*readable, *_HARMLESS)))
        self._modules = {*modules, *sys.stdlib_module_names}
        self._ports = set(ports)
        self._busy = threading.local()
        self._watching = True

    def start(self) -> None:
        """From now on."""
        sys.addaudithook(self._hook)

    def stop(self) -> None:
        """Look away; audit hooks cannot be taken away again."""
        self._watching = False

    def may_import(self, name: str) -> bool:
        """Whether a module is one of the allowed; importlib.import_module tells no hook what it imports."""
        return name.split(".")[0] in self._modules

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._watching or getattr(self._busy, "here", False):
            return
        self._busy.here = True
        try:
            if not self._is_allowed(event, arguments):
                self.seen.append(f"{event} {arguments!r}"[:500])
        finally:
            self._busy.here = False

    def _is_allowed(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event.startswith(_PROCESSES) or event in _CODE:
            return False
        if event == "import":
            self.sought.add(arguments[0])
            return self.may_import(arguments[0])
        if event == "exec":
            return self._is_ours(arguments[0].co_filename)
        if event == "compile":
            return arguments[1] is None or self._is_ours(_text(arguments[1]))
        if event == "open":
            return self._may_open(arguments[0], arguments[2])
        if event in _CHANGES:
            return all(_inside(_at(arguments, *where), self._writable) for where in _CHANGES[event])
        if event == "os.symlink":  # it may neither stand nor lead out of the cache
            link = _at(arguments, 1, 2)
            return all(_inside(path, self._writable) for path in (link, os.path.join(os.path.dirname(link), _text(arguments[0]))))
        if event in ("socket.connect", "socket.sendto", "socket.bind"):
            return self._may_connect(arguments[1])
        if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            return arguments[0] in ("127.0.0.1", "localhost")
        return True

    def _may_open(self, path: Any, flags: int) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):  # a descriptor: it was opened before
            return True
        allowed = (*self._writable, "/dev/null") if flags & _WRITING else self._readable
        return _inside(_text(path), allowed)

    def _may_connect(self, address: Any) -> bool:
        return isinstance(address, tuple) and address[0] == "127.0.0.1" and address[1] in self._ports

    def _is_ours(self, filename: str) -> bool:
        """Code from a file of an installed package, or of none: dataclasses and namedtuples write theirs."""
        return filename in ("<string>", "<frozen importlib._bootstrap>") or _inside(filename, self._code)


def _at(arguments: tuple[Any, ...], path: int, folder: int | None) -> str:
    """A path among an event's arguments, in full."""
    descriptors = "/proc/self/fd"
    if isinstance(arguments[path], int):
        return os.readlink(f"{descriptors}/{arguments[path]}")
    base = os.getcwd() if folder is None or arguments[folder] < 0 else os.readlink(f"{descriptors}/{arguments[folder]}")
    return os.path.join(base, _text(arguments[path]))


def _text(path: Any) -> str:
    return os.fsdecode(path)


def _inside(path: str, folders: Iterable[str]) -> bool:
    real = os.path.realpath(path)
    return any(real == folder or real.startswith(folder + os.sep) for folder in folders)
