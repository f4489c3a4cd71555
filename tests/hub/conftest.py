"""A Hugging Face Hub on loopback and the real client, imported anew with its environment set; nothing touches ~/.cache."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hub.loopback_hub import LoopbackHub

TOKENS = {"alice": "hf_alice_secret", "bob": "hf_bob_secret"}


@contextmanager
def client_of(hub: LoopbackHub, home: Path) -> Iterator[None]:
    """huggingface_hub reads its environment once, at import: import it anew for this Hub, and leave things as they were."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "huggingface_hub"}
    patch = pytest.MonkeyPatch()
    for name, value in hub.env(home=home).items():
        patch.setenv(name, value)
    _forget_client()
    try:
        yield
    finally:
        _forget_client()
        sys.modules.update(before)
        patch.undo()


def _forget_client() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        del sys.modules[name]


def welcome(hub: LoopbackHub) -> None:
    """Forget everything, and know alice (who is also in the organisation dreamers) and bob."""
    hub.reset()
    hub.rate_limit, hub.url_lifetime = None, 3600.0
    hub.add_user("alice", TOKENS["alice"], orgs=("dreamers",))
    hub.add_user("bob", TOKENS["bob"])


@pytest.fixture(scope="module")
def lfs_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    """A Hub that keeps large files as LFS; faults reach every byte."""
    with LoopbackHub() as served, client_of(served, tmp_path_factory.mktemp("home")):
        yield served


@pytest.fixture
def hub(lfs_hub: LoopbackHub, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """The module's Hub, emptied; this process is alice, with an empty cache of her own."""
    welcome(lfs_hub)
    monkeypatch.setenv("HF_TOKEN", TOKENS["alice"])
    yield lfs_hub
    for thread in threading.enumerate():  # what a test gave up goes on, and would still write to the next test's Hub
        if thread.name == "dreamgym-hub":
            thread.join(30)
            assert not thread.is_alive(), "a question that a test gave up has no end"


@pytest.fixture
def own_cache(lfs_hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The client's cache for this test: empty, and no other test's."""
    return move_to(tmp_path / "cache", monkeypatch)


def move_to(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As on another machine: let the client keep its files in `cache` from now on."""
    import huggingface_hub.constants as constants

    assert not cache.is_relative_to(Path.home() / ".cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture(scope="module")
def xet_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    """What users have by default: large files travel through hf_xet. Its environment is for subprocesses: `environment`."""
    with LoopbackHub(xet_dir=tmp_path_factory.mktemp("xet")) as served, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_XET_CACHE", str(tmp_path_factory.mktemp("xet-cache")))  # the Hub opens its store with hf_xet, too, which logs
        yield served


def environment(hub: LoopbackHub, home: Path, user: str | None = "alice") -> dict[str, str]:
    """The environment of a subprocess on a machine of its own: this Hub, an empty home, a user's token."""
    return {**os.environ, **hub.env(TOKENS[user] if user else None, home=home), "OMP_NUM_THREADS": "1"}
