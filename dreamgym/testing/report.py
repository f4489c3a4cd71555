"""What an examination of a model found, told so that its author knows what to change."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Fault", "Finding", "Report"]

_WIDTH = 110


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: what was expected, what was found instead, how to mend it."""

    expected: str
    found: str
    mend: str


@dataclass(frozen=True)
class Finding:
    """A fault, and the name of the check that met it."""

    check: str
    expected: str
    found: str
    mend: str

    def __str__(self) -> str:
        """Four lines for a person."""
        told = [("expected", self.expected), ("found", self.found), ("to mend it", self.mend)]
        return "\n".join([f"{self.check}: FAILED", *(_told(label, text) for label, text in told)])


@dataclass(frozen=True)
class Report:
    """What `check_world_model` found. print() it, look at `ok`, or let `raise_for_findings` fail a test.

    passed: names of the checks that had nothing to say, in the order they were made. not_made: why other checks were left out (the
    model lacks what they look at, or something they build on failed).
    """

    model: str  # what was examined, in words
    findings: tuple[Finding, ...]
    passed: tuple[str, ...]
    not_made: Mapping[str, str]
    order: tuple[str, ...] = ()  # of all checks, for the table

    @property
    def ok(self) -> bool:
        """Whether nothing breaks the contract, as far as it could be checked."""
        return not self.findings

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks with findings, each once."""
        return tuple(dict.fromkeys(finding.check for finding in self.findings))

    def raise_for_findings(self) -> None:
        """Raises AssertionError with all findings, if there are any."""
        if self.findings:
            raise AssertionError("\n\n".join([self._summary(), *map(str, self.findings)]))

    def __str__(self) -> str:
        """A line for each check, then the findings in full."""
        names = self.order or (*self.passed, *self.failed, *self.not_made)
        width = max(map(len, names), default=0)
        lines = [f"  {name.ljust(width)}  {self._verdict(name)}" for name in names]
        return "\n".join([self._summary(), "", *lines, *(f"\n{finding}" for finding in self.findings)])

    def _summary(self) -> str:
        left_out = f", {len(self.not_made)} not made" if self.not_made else ""
        return f"{self.model}: {len(self.passed)} checks passed, {len(self.failed)} failed{left_out}"

    def _verdict(self, name: str) -> str:
        if name in self.not_made:
            return f"not made: {self.not_made[name]}"
        return "FAILED" if name in self.failed else "passed"


def _told(label: str, text: str) -> str:
    indent = " " * 14
    return textwrap.fill(text, _WIDTH, initial_indent=f"  {label.ljust(12)}", subsequent_indent=indent, break_long_words=False)
