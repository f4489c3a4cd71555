"""Good things to be spoilt, and the sandbox that opens them."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.planning import CEM, CEMConfig
from dreamgym.data.minari import to_minari
from dreamgym.hub import bundle
from dreamgym.hub.datasets import save_rollouts
from tests.hub import rollouts, toys
from tests.hub.conftest import welcome
from tests.hub.hostile.opening import Opening, contents
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


def save_others(root: Path, good: Path) -> dict[str, Path]:
    """Things that are no models, and the doors that open them."""
    model, replay = bundle.load(good), rollouts.filled()
    size = model.features(model.initial(1)).shape[-1]
    saved = {"agent": root / "actor-critic", "planner": root / "cem", "dataset": root / "episodes", "minari": root / "minari-v0"}
    ActorCritic(model.spec, size, ActorCriticConfig(layers=1, units=4)).save(saved["agent"])
    CEM(model, CEMConfig(horizon=2, candidates=4, elites=2)).save(saved["planner"])
    save_rollouts(replay, saved["dataset"])
    to_minari(replay, saved["minari"])
    return saved


@pytest.fixture(scope="session")
def opening(tmp_path_factory: pytest.TempPathFactory, good: Path) -> Iterator[Opening]:
    """The sandbox, warmed with good files."""
    with LoopbackHub() as hub:
        welcome(hub)
        root = tmp_path_factory.mktemp("hostile")
        shutil.copytree(good, root / "good")
        model = str(root / "good")
        hub.add_repo("alice/good", contents(good))
        doors = {"folder": [model], "dreamt": [model], "awake": [model], "described": [model], "misdeed": ["none", ""]}
        doors |= {"repo": ["alice/good", {}], "repo_dreamt": ["alice/good", {}], "repo_described": ["alice/good"]}
        others = save_others(root, good)
        doors |= {door: [str(path), *([model] if door in ("agent", "planner") else [])] for door, path in others.items()}
        hub.add_repo("alice/agent", contents(others["agent"]))
        hub.add_repo("alice/episodes", contents(others["dataset"]), type="dataset")
        doors |= {"repo_agent": ["alice/agent", model, {}], "repo_dataset": ["alice/episodes", {}]}
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
