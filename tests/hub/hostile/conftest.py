"""Good things to be spoilt, and the sandbox that opens them."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamgym.hub import bundle
from tests.hub import toys
from tests.hub.conftest import welcome
from tests.hub.hostile.opening import Opening
from tests.hub.loopback_hub import LoopbackHub

if sys.platform != "linux":  # limits on memory, and the account of it, are Linux's
    collect_ignore_glob = ["test_*.py"]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model."""
    folder = tmp_path_factory.mktemp("good") / "m"
    bundle.save(toys.ensemble(), folder)
    return folder


@pytest.fixture(scope="session")
def opening(tmp_path_factory: pytest.TempPathFactory, good: Path) -> Iterator[Opening]:
    """The sandbox, warmed with good files."""
    with LoopbackHub() as hub:
        welcome(hub)
        root = tmp_path_factory.mktemp("hostile")
        shutil.copytree(good, root / "good")
        model = str(root / "good")
        hub.add_repo("alice/good", {path.name: path.read_bytes() for path in good.iterdir()})
        doors = {"folder": [model], "dreamt": [model], "awake": [model], "misdeed": ["none", ""]}
        doors |= {"repo": ["alice/good", {}], "repo_dreamt": ["alice/good", {}]}
        opened = Opening(root, hub, doors)
        yield opened
        opened.close()


@pytest.fixture
def folder(opening: Opening, good: Path) -> Iterator[Path]:
    """A good model to be spoilt."""
    folder = opening.work / str(next(_numbers)) / "m"
    shutil.copytree(good, folder)
    yield folder
    shutil.rmtree(folder.parent)
