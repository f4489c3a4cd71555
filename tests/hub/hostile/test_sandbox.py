"""The sandbox sees what it is there to see: each misdeed that a forged file could lead to is reported, and a harmless child is not."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tests.hub.hostile.opening import Opening
from tests.hub.hostile.sandbox import GROWTH


def test_a_child_that_does_nothing_is_not_reported(opening: Opening) -> None:
    assert opening.tried("misdeed", "none", "").error is None


@pytest.mark.parametrize(
    ("deed", "argument", "event"),
    [
        ("run", "true", "os.system"),
        ("start", "true", "subprocess.Popen"),
        ("fork", "", "os.fork"),
        ("import", "evilmod", "import"),
        ("execute", "{root}/nowhere/evilmod.py", "exec"),
        ("unpickle", "{root}/nowhere/evil.pkl", "pickle.find_class"),
        ("read", "/etc/hostname", "open"),
        ("write", "{root}/work/here", "open"),
        ("remove", "{root}/work/here", "os.remove"),
        ("connect", "9", "socket.connect"),
    ],
)
def test_a_misdeed_is_reported(opening: Opening, deed: str, argument: str, event: str) -> None:
    nowhere = opening.root / "nowhere"
    (nowhere / "evilmod.py").write_text("x = 1")
    (nowhere / "evil.pkl").write_bytes(pickle.dumps(Path.touch))
    (opening.work / "here").write_text("before")
    report = opening.reported("misdeed", deed, argument.format(root=opening.root))
    assert any(seen.startswith(f"{event} ") for seen in report.events), report
    assert bool(report.disturbed) == (deed in ("write", "remove")), report
    with pytest.raises(AssertionError):
        opening.tried("misdeed", deed, argument.format(root=opening.root))


def test_a_child_that_grows_too_much_is_stopped(opening: Opening) -> None:
    assert opening.reported("misdeed", "grow", str(GROWTH + 100 * 1024**2)).error == "MemoryError"


def test_a_child_that_waits_too_long_is_reported(opening: Opening) -> None:
    assert opening.reported("misdeed", "wait", "5.5").error == "Hang"
