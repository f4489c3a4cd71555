"""How tests have things opened in the sandbox, and what must be true of every opening, whatever became of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.hub.conftest import TOKENS, environment
from tests.hub.hostile.sandbox import GROWTH, Report, Settings
from tests.hub.loopback_hub import LoopbackHub

__all__ = ["CASES", "Opening", "case", "contents"]

CASES: dict[int | str, list[str]] = {}  # of hub.md 4.4 -> the tests that try it


def case(*numbers: int | str) -> Any:
    """Note which of the hostile inputs of hub.md 4.4 a test is about."""

    def noted(test: Any) -> Any:
        for number in numbers:
            CASES.setdefault(number, []).append(test.__name__)
        return test

    return noted


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, as a repository holds them."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Opening:
    """The sandbox from outside. root holds everything that a child could disturb; forged things lie in root/work."""

    def __init__(self, root: Path, hub: LoopbackHub, good: dict[str, list[Any]]) -> None:
        self.root, self.hub, self.work, self.cache = root, hub, root / "work", root / "home" / "hub"
        for folder in (self.work, self.cache, root / "tmp", root / "nowhere"):
            folder.mkdir(parents=True, exist_ok=True)
        (root / "canary").write_text("alive")
        ports = [int(address.rsplit(":", 1)[1]) for address in (hub.endpoint, hub.cdn)]
        settings = Settings(str(self.cache), [str(root)], str(root), ports, good)
        project = str(Path(__file__).parents[3])
        here = {"PYTHONPATH": project, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(root / "tmp"), "HOME": str(root / "home")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub.hostile.sandbox", json.dumps(asdict(settings))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment(hub, root / "home"), **here},
            cwd=root / "nowhere",
        )
        self._answer()

    def opens(self, door: str, *arguments: Any) -> Report:
        """It must open."""
        report = self.tried(door, *arguments)
        assert report.error is None, f"{report.error}: {report.message}\n{report.trace}"
        return report

    def refuses(self, door: str, *arguments: Any, complaint: str, error: str = "InvalidModelError", begins: str | None = None) -> Report:
        """It must be refused, by one of our errors, in words that begin with the place and can be printed.

        begins: how the message begins; the first argument, a folder, by default.
        """
        report = self.tried(door, *arguments)
        assert report.error == error, f"{report.error}: {report.message}\n{report.trace}"
        assert report.ours or error == "ValueError"
        assert re.search(complaint, report.message), report.message
        assert report.message.startswith(str(arguments[0]) if begins is None else begins), report.message
        return report

    def tried(self, door: str, *arguments: Any) -> Report:
        """Whatever becomes of it, it must have been quick, small and quiet, and have kept secrets."""
        report = self.reported(door, *arguments)
        assert report.error not in ("Hang", "Crash", "MemoryError"), f"{report.error}: {report.message}\n{report.trace}{report.printed}"
        assert not report.events and not report.disturbed, f"{report.events} {report.disturbed}"
        assert report.grown < GROWTH
        assert report.message.isprintable() and len(report.message) < 1000, report.message
        for line in report.printed.split("\n"):
            assert line.isprintable() and len(line) < 1000, repr(line[:2000])
        for secret in (*TOKENS.values(), "sig="):
            assert secret not in report.message + report.trace + report.printed
        return report

    def reported(self, door: str, *arguments: Any) -> Report:
        """What the sandbox says, not judged yet."""
        assert self._process.stdin is not None
        print(json.dumps({"door": door, "arguments": arguments}), file=self._process.stdin, flush=True)
        return Report(**json.loads(self._answer()))

    def close(self) -> None:
        """End the sandbox."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the sandbox ended; what it said is above"
        return line
