"""A process that opens what strangers made, once per request, each time in a child of its own with limits on memory and time.

It imports torch and opens good files first, then forks, so that a child takes milliseconds, and whatever it does is the forger's doing.
Requests and reports are lines of JSON on standard input and output. `python -m tests.hub.hostile.sandbox SETTINGS` runs it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.hub.hostile.doors import DOORS
from tests.hub.hostile.watch import Watch

__all__ = ["GROWTH", "PATIENCE", "Report", "Settings"]

GROWTH = 500 * 1024**2  # bytes of address space above what the good case needs
PATIENCE = 5.0  # seconds longer than the good case, not counting those for which a busy machine had no processor to give
_LONGEST = 90.0


@dataclass(frozen=True)
class Settings:
    """cache: the only folder that may be written to; readable: others that may be read; root: a folder where nothing else may change."""

    cache: str
    readable: list[str]
    root: str
    ports: list[int]
    good: dict[str, list[Any]]  # door -> arguments with which it opens


@dataclass(frozen=True)
class Report:
    """What became of one request. error: the class's name, or None if it opened; then `message` is what the door says of it."""

    error: str | None
    message: str
    ours: bool = False  # whether it is one of dreamgym's errors
    trace: str = ""
    printed: str = ""
    seconds: float = 0.0  # computing or waiting, but not for a processor
    peak: int = 0  # bytes of address space
    grown: int = 0  # bytes of memory in use, over those at the start
    events: list[str] = field(default_factory=list)
    imported: list[str] = field(default_factory=list)
    sought: list[str] = field(default_factory=list)  # what was to be imported, whether it is installed or not
    disturbed: list[str] = field(default_factory=list)  # what changed outside the cache


class Sandbox:
    """Doors to try, and what each needs when all is well."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.modules = {name.split(".")[0] for name in sys.modules}
        self.good: dict[str, Report] = {}

    def warm(self) -> None:
        """Open good files, first here, then as a child does, which tells what the limits are."""
        for door, arguments in self.settings.good.items():
            if not door.startswith("repo"):  # connections and their threads do not survive a fork
                DOORS[door](*arguments)
        self.modules |= {name.split(".")[0] for name in sys.modules}
        for door, arguments in self.settings.good.items():
            report = self._in_child(door, arguments, None)
            if report.error is not None:
                raise RuntimeError(f"the good case of {door} fails: {report.message}\n{report.trace}")
            self.modules |= {name.split(".")[0] for name in (*report.imported, *report.sought)}
            for name in report.imported:  # once, here, instead of in every child
                with suppress(Exception):  # some only come with others
                    importlib.import_module(name)
            again = self._in_child(door, arguments, None)
            self.good[door] = replace(again, peak=max(report.peak, again.peak), grown=min(report.grown, again.grown))

    def try_door(self, door: str, arguments: list[Any]) -> Report:
        """Open something in a child whose limits are those of the good case and a bit."""
        good = self.good[door]
        before = self._listing()
        report = self._in_child(door, arguments, good.peak + GROWTH)
        if report.seconds > good.seconds + PATIENCE:
            report = Report(
                "Hang", f"took {report.seconds:.1f} s, {good.seconds:.1f} s if all is well; then {report.error}: {report.message}"
            )
        disturbed = sorted({path for path, _ in before ^ self._listing()})
        return Report(**{**asdict(report), "disturbed": disturbed, "grown": report.grown - good.grown})

    def _listing(self) -> set[tuple[str, int]]:
        """Everything there is outside the cache, and when it was last changed."""
        found = Path(self.settings.root).rglob("*")
        return {(str(path), path.lstat().st_mtime_ns) for path in found if not path.is_relative_to(self.settings.cache)}

    def _in_child(self, door: str, arguments: list[Any], limit: int | None) -> Report:
        reading, writing = os.pipe()
        sys.stdout.flush()
        with os.fdopen(os.memfd_create("printed"), "r+b") as printed:
            child = os.fork()
            if child == 0:
                os.close(reading)
                self._be_child(door, arguments, limit, writing, printed.fileno())
            os.close(writing)
            text = _read_all(reading, time.monotonic() + _LONGEST)
            if text is None:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            printed.seek(0)
            said = printed.read().decode(errors="replace")
        if text is None:
            return Report("Hang", f"not done after {_LONGEST} s", printed=said)
        if not text:
            return Report("Crash", f"the child ended with status {status}", printed=said)
        return Report(**{**json.loads(text), "printed": said})

    def _be_child(self, door: str, arguments: list[Any], limit: int | None, pipe: int, printed: int) -> None:
        """Never returns."""
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        started, resident = _own_time(), _memory("VmRSS")
        watch = Watch(writable=[self.settings.cache], readable=self.settings.readable, modules=self.modules, ports=self.settings.ports)
        known = set(sys.modules)
        watch.start()
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        failure: BaseException | None = None
        try:
            opened = DOORS[door](*arguments)
        except BaseException as error:
            failure = error
        watch.stop()
        outcome: dict[str, Any] = {"seconds": _own_time() - started, "peak": _memory("VmPeak"), "grown": _memory("VmHWM") - resident}
        imported = sorted(set(sys.modules) - known)
        strange = [f"import {name}" for name in imported if not watch.may_import(name)]
        outcome |= {"events": [*watch.seen[:50], *strange], "imported": imported, "sought": sorted(watch.sought)}
        outcome |= {"error": None, "message": opened} if failure is None else _described(failure)
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(pipe, json.dumps(outcome).encode())
        os._exit(0)


def _described(error: BaseException) -> dict[str, Any]:
    from dreamgym.errors import DreamGymError

    trace = "".join(traceback.format_exception(error))
    return {"error": type(error).__name__, "message": str(error), "ours": isinstance(error, DreamGymError), "trace": trace}


def _memory(name: str) -> int:
    """Bytes, from Linux's account of this process."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024


def _own_time() -> float:
    """Seconds on a clock that stands still while this process could run but no processor is free."""
    account = Path("/proc/self/schedstat")  # some kernels keep none
    return time.monotonic() - (int(account.read_text().split()[1]) / 1e9 if account.exists() else 0.0)


def _read_all(pipe: int, deadline: float) -> bytes | None:
    """Everything until the other end is closed, or None if that takes too long."""
    parts: list[bytes] = []
    with open(pipe, "rb", buffering=0) as stream:
        while select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = stream.read(65536)
            if not part:
                return b"".join(parts)
            parts.append(part)
    return None


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed here is no answer
    sandbox = Sandbox(Settings(**json.loads(sys.argv[1])))
    sandbox.warm()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(asdict(sandbox.try_door(request["door"], request["arguments"]))), file=answers, flush=True)
    os._exit(0)  # torch takes its time to leave


if __name__ == "__main__":
    main()
