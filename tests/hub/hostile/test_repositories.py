"""Repositories by somebody who wishes us ill, through the real client: only three files are fetched, written to the cache alone."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.conftest import TOKENS
from tests.hub.hostile.opening import Opening, case, contents
from tests.hub.hostile.test_files import pickled
from tests.hub.toys import STARTS, WEIGHTS, edit_config

FILES = ("config.json", WEIGHTS, STARTS)
NO_NAMES = [
    *("user/repo/extra", "https://huggingface.co/user/repo", "hf://user/repo", "user\\repo", "", "a" * 150 + "/" + "b" * 150, "user/"),
    *("user/..", "us er/repo", "user/re--po", "user/repo.git", "user/repo\n", "user/repo\x1b[2J", "\x00/x", "user/repo?x=1"),
    *("user/repo#x", "user/repo@../x", "user/repo@", "user/repo@a@b", "usér/repo", "-user/repo"),
]
NO_REVISIONS = ["../x", "../../refs/main", "", "a//b", "x" * 300, "main\n", ".", "a/../b", "v1.lock", "é", "a b", "\x1b[", "/main"]
_names = (f"mallory/m{number}" for number in itertools.count())


@pytest.fixture(autouse=True)
def calm(opening: Opening) -> Iterator[None]:
    """A Hub without faults, whose log begins now."""
    opening.hub.faults.clear()
    opening.hub.log.clear()
    yield
    opening.hub.faults.clear()
    opening.hub.url_lifetime = 3600.0


def shared(opening: Opening, folder: Path, more: dict[str, bytes] | None = None, **settings: Any) -> str:
    """A new repository with the files of a folder."""
    name = next(_names)
    opening.hub.add_repo(name, contents(folder) | (more or {}), **settings)
    return name


def in_cache(opening: Opening, name: str, file: str) -> Path:
    (found,) = (opening.cache / f"models--{name.replace('/', '--')}").glob(f"snapshots/*/{file}")
    return found.resolve()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def test_a_good_repository_opens_and_writes_to_the_cache_alone(opening: Opening, good: Path) -> None:
    name = shared(opening, good)
    assert opening.opens("repo", name, {}).message.startswith(f"CartPole-v1 of {name}@")
    assert sorted({line.split()[1].rsplit("/", 1)[1] for line in opening.hub.requests(r"/resolve/")}) == sorted(FILES)
    assert opening.opens("repo_dreamt", name, {}).message.startswith(f"{name}@")


@case(1)
@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "weights.pt"])
@pytest.mark.parametrize("kept", [[], ["config.json", STARTS]])
def test_a_repository_of_pickles_is_refused_and_they_are_not_downloaded(
    opening: Opening, folder: Path, pickle: str, kept: list[str]
) -> None:
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()
    (folder / pickle).write_bytes(pickled(folder))
    name = shared(opening, folder)
    complaint = rf"it has no (config\.json|model\.safetensors) \(found {pickle}; dreamgym does not load pickle files\)"
    opening.refuses("repo", name, {}, complaint=complaint, begins=f"'{name}'")
    assert not opening.hub.requests(rf"{pickle}|GET /blob")


@case(2, 3, 10, 12, 15)
@pytest.mark.parametrize(
    ("forge", "complaint"),
    [
        (lambda f: (f / WEIGHTS).write_bytes(pickled(f)), r"model\.safetensors: not a safetensors file but a pickle"),
        (lambda f: (f / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
        (lambda f: edit_config(f, lambda c: c["model"]["core"].update(units=10**9)), r"config\.json: .*units is 1000000000"),
        (lambda f: edit_config(f, lambda c: c.update(entry_point="os:system")), r"config\.json: .*unknown key 'entry_point'"),
        (lambda f: (f / "config.json").write_bytes(b" " * 100_000), r"config\.json.*100000 bytes; the limit is 65536"),
    ],
)
def test_forged_files_are_refused_as_in_a_folder(opening: Opening, folder: Path, forge: Callable[[Path], Any], complaint: str) -> None:
    forge(folder)
    name = shared(opening, folder)
    opening.refuses("repo", name, {}, complaint=complaint, begins=name)
    opening.refuses("repo_dreamt", name, {}, complaint=complaint, begins=name)


@case(4)
def test_a_byte_that_the_server_flips_once_is_fetched_again(opening: Opening, good: Path) -> None:
    name = shared(opening, good)
    opening.hub.fail("corrupt", "GET /blob", after=100, times=1)
    opening.opens("repo", name, {})
    assert in_cache(opening, name, WEIGHTS).read_bytes() == (good / WEIGHTS).read_bytes()


@case(4)
def test_a_byte_that_the_server_always_flips_is_refused_after_one_more_download(opening: Opening, good: Path) -> None:
    name = shared(opening, good)
    size = (good / WEIGHTS).stat().st_size
    opening.hub.fail("corrupt", "GET /blob", after=size - 3, times=-1)
    announced = json.loads((good / "config.json").read_text())["files"][WEIGHTS]["sha256"]
    complaint = rf"model\.safetensors: damaged or replaced: sha256 is [0-9a-f]{{64}}, but config\.json announces {announced}"
    opening.refuses("repo", name, {}, complaint=complaint, begins=name)
    assert len(opening.hub.requests(f"GET /blob.*{announced}")) == 2


@case(4)
@pytest.mark.parametrize("file", FILES)
def test_a_byte_that_flips_in_the_cache_is_fetched_again_or_named_with_its_cure(opening: Opening, good: Path, file: str) -> None:
    name = shared(opening, good)
    opening.opens("repo", name, {})
    flip(in_cache(opening, name, file))
    opening.refuses("repo", name, {"local_files_only": True}, complaint=rf"{file}: .*hf cache rm model/{name}", begins=name)
    opening.opens("repo", name, {})
    assert in_cache(opening, name, file).read_bytes() == (good / file).read_bytes()


@case(21)
def test_other_files_of_a_repository_are_not_fetched_wherever_they_would_like_to_go(opening: Opening, good: Path) -> None:
    evil = f"open({str(opening.root / 'evil')!r}, 'w')".encode()
    names = ["../../evil", "/tmp/evil", "C:\\evil", "__init__.py", "setup.py", "dreamgym.py", "sitecustomize.py", "config.py", "..\\evil"]
    name = shared(opening, good, dict.fromkeys(names, evil) | {"README.md": b"\x1b[2J" + b"x" * 10_000_000})
    opening.opens("repo", name, {})
    opening.opens("repo_dreamt", name, {})
    assert sorted({line.split()[1].rsplit("/", 1)[1] for line in opening.hub.requests(r"/resolve/")}) == sorted(FILES)
    assert not [path for path in opening.cache.rglob("*") if path.name.endswith((".py", "evil", ".md"))]


@case(22)
def test_a_link_in_the_cache_that_leads_out_of_it_is_refused(opening: Opening, good: Path) -> None:
    name = shared(opening, good)
    opening.opens("repo", name, {})
    (link,) = (opening.cache / f"models--{name.replace('/', '--')}").glob(f"snapshots/*/{WEIGHTS}")
    link.unlink()
    link.symlink_to("/dev/zero")
    report = opening.tried("repo", name, {"local_files_only": True})
    assert report.error in ("InvalidModelError", "HubUnreachableError"), report


@case(25)
@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_none_is_refused_without_a_request(opening: Opening, name: str) -> None:
    for door in ("repo", "repo_dreamt"):
        opening.refuses(door, name, {}, complaint="expected (user/repo|a branch)", error="ValueError", begins="")
    assert opening.hub.log == []


@case(25)
@pytest.mark.parametrize("name", ["../../etc", "/etc", "~/../etc", "./user/repo"])
def test_what_is_written_as_a_path_is_a_folder_and_asks_nothing(opening: Opening, name: str) -> None:
    opening.refuses("repo", name, {}, complaint="no such folder|it has no config", error="ModelNotFoundError", begins="")
    assert opening.hub.log == []


@case(25)
@pytest.mark.parametrize("revision", NO_REVISIONS)
def test_a_revision_that_is_none_is_refused_without_a_request(opening: Opening, good: Path, revision: str) -> None:
    name = shared(opening, good)
    for offline in (False, True):
        options = {"revision": revision, "local_files_only": offline}
        opening.refuses("repo", name, options, complaint="expected a branch, a tag or a commit", error="ValueError", begins="")
    assert opening.hub.log == []


@case("token")
def test_no_failure_shows_a_token_or_a_signature(opening: Opening, good: Path) -> None:
    """`tried` looks for alice's and bob's tokens, and signatures, in the message, the whole traceback and all that was printed."""
    hub = opening.hub
    for options in ({}, {"token": TOKENS["bob"]}):
        opening.refuses("repo", shared(opening, good, private=True), options, complaint="", error="ModelNotFoundError", begins="")
        opening.refuses("repo", shared(opening, good, gated="manual"), options, complaint="gated", error="ModelAccessError", begins="")
        hub.url_lifetime = -1.0
        opening.refuses("repo", shared(opening, good), options, complaint="expired", error="HubUnreachableError", begins="")
        hub.url_lifetime = 3600.0
        for status in (401, 403, 500):
            hub.fail("status", "GET /blob", status=status, times=-1, message=f"Authorization: Bearer {TOKENS['alice']}")
            report = opening.tried("repo", shared(opening, good), options)
            assert report.ours, report
            hub.faults.clear()
        hub.fail("drop", "GET /blob", times=2)
        assert opening.tried("repo", shared(opening, good), options).error in (None, "HubUnreachableError")
        hub.faults.clear()


@case("escapes")
def test_what_a_server_says_is_shown_without_escapes(opening: Opening, good: Path) -> None:
    for status in (400, 403, 418):
        opening.hub.fail("status", "HEAD|GET", status=status, times=-1, message="\x1b[2J\u202eevil" + "x" * 5000)
        report = opening.tried("repo", shared(opening, good), {})
        assert report.ours, report
        opening.hub.faults.clear()


def test_a_folder_that_bears_the_name_of_a_repository_is_not_mixed_with_it(opening: Opening, folder: Path) -> None:
    """Case 25 from the other side: a name with a slash means the Hub unless a model lies there."""
    lies = opening.root / "nowhere" / "mallory" / "folder"
    shutil.copytree(folder, lies)
    report = opening.opens("repo", "mallory/folder", {})
    assert report.message == f"CartPole-v1 of {lies}"
    assert opening.hub.log == []
    shutil.rmtree(lies.parent)
