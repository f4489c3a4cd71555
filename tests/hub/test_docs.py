"""docs/hub.md against a Hub of its own: its blocks, which tests/test_readme.py cannot run without one, and its commands."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import dreamgym
from dreamgym import cli
from tests.hub import toys
from tests.hub.conftest import TOKENS
from tests.hub.loopback_hub import LoopbackHub
from tests.test_readme import ROOT, as_script, blocks_of

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client, about its own calls
TEXT = (ROOT / "docs" / "hub.md").read_text()


@pytest.fixture
def you(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """The reader, logged in, in a folder with a model to push."""
    hub.add_user("you", TOKENS["alice"])
    monkeypatch.chdir(tmp_path)
    toys.ensemble().save_pretrained("runs/pendulum/model")
    return hub


def test_every_block_about_the_hub_runs_in_order(you: LoopbackHub) -> None:
    exec(compile(as_script(blocks_of(TEXT)), "docs/hub.md", "exec"), {"__name__": "docs"})
    assert {name for _, name in you.repos} == {"you/pendulum-dream", "you/pendulum-agent"}


def test_every_command_runs_in_order(you: LoopbackHub, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line for line in TEXT.splitlines() if line.startswith("dreamgym ")]
    assert len(commands) == 4
    for command in commands:
        assert cli.main(shlex.split(command)[1:]) == 0, capsys.readouterr().err
    assert dreamgym.WorldModel.from_pretrained("./another-dream").spec.env_id == "CartPole-v1"
