"""Files of a repository: which requests are made for them and which are not, and what is refused before it is downloaded."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dreamgym.errors import HubUnreachableError, InvalidModelError, MissingDependencyError, ModelNotFoundError
from dreamgym.hub import client, questions
from dreamgym.hub.client import Access, Repo, fetch, parse_repo, refetch, upload
from dreamgym.hub.impatience import GaveUpError
from tests.hub.loopback_hub import LoopbackHub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client, about its own calls
NAMES = {"config.json": 100, "model.safetensors": 10_000}
FILES = {"config.json": b"{}", "model.safetensors": bytes(5000), "README.md": b"# hello"}


@pytest.fixture
def repo(hub: LoopbackHub) -> Repo:
    hub.add_repo("alice/toy", FILES)
    return Repo("alice/toy")


def newer(hub: LoopbackHub) -> str:
    """The branch moves."""
    return hub.commit("alice/toy", {"model.safetensors": bytes([1]) * 5000})


# ---- names --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "revision", "repo"),
    [
        ("user/repo", None, Repo("user/repo")),
        ("user/repo@v1.0", None, Repo("user/repo", "v1.0")),
        ("user/repo", "refs/pr/3", Repo("user/repo", "refs/pr/3")),
        ("user/repo@main", "main", Repo("user/repo", "main")),
        ("A-b_c.d/E.f", "feature/x", Repo("A-b_c.d/E.f", "feature/x")),
    ],
)
def test_a_repository_and_its_revision_are_read_from_text(text: str, revision: str | None, repo: Repo) -> None:
    assert parse_repo(text, revision) == repo


@pytest.mark.parametrize(
    "text",
    ["", "repo", "a/b/c", "../../etc", "https://huggingface.co/a/b", "hf://a/b", "a\\b", "a/..", "./a/b", "/a/b", "a/b.git", "a--b/c"]
    + [
        "a/" + "b" * 300,
        "a b/c",
        "a/b\n",
        "a/b?x=1",
        "ä/b",
        "-a/b",
        "a/b@",
        "a/b@../x",
        "a/b@/x",
        "a/b@x//y",
        "a/b@" + "x" * 201,
        "a/b@x y",
    ],
)
def test_other_text_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected (user/repo|a branch)") as caught:
        parse_repo(text)
    assert len(str(caught.value)) < 400


def test_two_revisions_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        parse_repo("user/repo@v1", "v2")


def test_an_access_never_shows_its_token() -> None:
    assert "secret" not in repr(Access("hf_secret"))


# ---- requests -----------------------------------------------------------------------------------------------------------------


def test_a_first_fetch_resolves_once_and_downloads_each_file_once(hub: LoopbackHub, repo: Repo) -> None:
    found = fetch(repo, NAMES, Access())
    assert len(hub.requests("GET /api")) == 1 and len(hub.requests("GET /blob")) == 1 and len(hub.requests("GET .*config.json")) == 1
    assert not hub.requests("README")
    assert found.commit == hub.repos["model", "alice/toy"].branches["main"]
    assert {name: path.read_bytes() for name, path in found.files.items()} == {name: FILES[name] for name in NAMES}
    assert not any(path.is_symlink() for path in found.files.values())


def test_a_second_fetch_asks_only_what_the_branch_means_now(hub: LoopbackHub, repo: Repo) -> None:
    first = fetch(repo, NAMES, Access())
    hub.log.clear()
    assert fetch(repo, NAMES, Access()) == first
    assert len(hub.log) == 1 and hub.requests("GET /api/models/alice/toy")


def test_a_commit_in_the_cache_is_not_asked_for(hub: LoopbackHub, repo: Repo) -> None:
    first = fetch(repo, NAMES, Access())
    newer(hub)
    hub.log.clear()
    assert fetch(Repo("alice/toy", first.commit), NAMES, Access()) == first
    assert not hub.log


def test_a_branch_that_moved_is_followed_and_a_tag_stays(hub: LoopbackHub, repo: Repo) -> None:
    first = fetch(repo, NAMES, Access())
    hub.repos["model", "alice/toy"].tags["v1"] = first.commit
    second = fetch(repo, NAMES, Access()) if newer(hub) else first
    assert second.commit != first.commit and second.files["model.safetensors"].read_bytes() == bytes([1]) * 5000
    assert fetch(Repo("alice/toy", "v1"), NAMES, Access()).commit == first.commit


def test_files_of_one_fetch_are_of_one_commit_though_the_branch_moves_meanwhile(
    hub: LoopbackHub, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    download = huggingface_hub.hf_hub_download

    def after_a_push(**options: object) -> str:
        newer(hub)
        return download(**options)  # type: ignore[arg-type]

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", after_a_push)
    assert fetch(repo, NAMES, Access()).files["model.safetensors"].read_bytes() == FILES["model.safetensors"]


def test_a_file_is_not_downloaded_before_its_size_is_known(hub: LoopbackHub, repo: Repo) -> None:
    with pytest.raises(InvalidModelError, match=r"^alice/toy/model\.safetensors: 5000 bytes; the limit is 4999$"):
        fetch(repo, {**NAMES, "model.safetensors": 4999}, Access())
    assert not hub.requests("GET /blob") and not hub.requests(r"GET .*config\.json")


def test_the_size_in_the_cache_counts_too(hub: LoopbackHub, repo: Repo) -> None:
    found = fetch(repo, NAMES, Access())
    with pytest.raises(InvalidModelError, match="the limit is 4999"):
        fetch(Repo("alice/toy", found.commit), {"model.safetensors": 4999}, Access())


def test_a_pickle_is_named_and_not_downloaded(hub: LoopbackHub) -> None:
    hub.add_repo("mallory/evil", {"pytorch_model.bin": b"\x80\x04evil", "config.json": b"{}"})
    with pytest.raises(InvalidModelError, match=r"it has no model\.safetensors \(found pytorch_model\.bin; dreamgym does not load pickle"):
        fetch(Repo("mallory/evil"), NAMES, Access())
    assert not hub.requests("pytorch_model") and not hub.requests("GET /blob")


def test_a_repository_of_another_library_is_named_as_that(hub: LoopbackHub) -> None:
    hub.add_repo("alice/sb3", {"README.md": b"---\nlibrary_name: stable-baselines3\n---\n"})
    with pytest.raises(ModelNotFoundError, match=r"'alice/sb3' is not a dreamgym model: it has no config\.json \(its library is 'stable-"):
        fetch(Repo("alice/sb3"), NAMES, Access())


def test_datasets_are_repositories_of_their_own(hub: LoopbackHub, repo: Repo) -> None:
    with pytest.raises(ModelNotFoundError, match="no dataset 'alice/toy'"):
        fetch(repo, NAMES, Access(), repo_type="dataset")


def test_a_file_is_fetched_again_over_the_cached_one(hub: LoopbackHub, repo: Repo) -> None:
    found = fetch(repo, NAMES, Access())
    found.files["config.json"].write_bytes(b"!!")
    assert refetch(found, "config.json", Access()).read_bytes() == b"{}"
    assert fetch(Repo("alice/toy", found.commit), NAMES, Access()).files["config.json"].read_bytes() == b"{}"


# ---- without the Hub ----------------------------------------------------------------------------------------------------------


def test_local_files_only_asks_nothing(hub: LoopbackHub, repo: Repo) -> None:
    first = fetch(repo, NAMES, Access())
    newer(hub)
    hub.log.clear()
    assert fetch(repo, NAMES, Access(local_files_only=True)) == first
    with pytest.raises(HubUnreachableError, match=r"'alice/toy' \(revision 'v1'\) is not in the cache .* and local_files_only=True"):
        fetch(Repo("alice/toy", "v1"), NAMES, Access(local_files_only=True))
    with pytest.raises(HubUnreachableError, match="local_files_only=True"):
        refetch(first, "config.json", Access(local_files_only=True))
    assert not hub.log


def test_the_offline_flag_asks_nothing(hub: LoopbackHub, repo: Repo, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    first = fetch(repo, NAMES, Access())
    hub.log.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(repo, NAMES, Access()) == first
    with pytest.raises(
        HubUnreachableError, match=r"not in the cache \(.*\) and HF_HUB_OFFLINE=1\. Run once online: hf download alice/none"
    ):
        fetch(Repo("alice/none"), NAMES, Access())
    with pytest.raises(HubUnreachableError, match="HF_HUB_OFFLINE=1 forbids pushing"):
        upload("alice/toy", {"x": b""}, message="x")
    assert not hub.log


def test_half_a_snapshot_is_not_one(hub: LoopbackHub, repo: Repo) -> None:
    fetch(repo, {"config.json": 100}, Access())
    with pytest.raises(HubUnreachableError, match="not in the cache"):
        fetch(repo, NAMES, Access(local_files_only=True))
    hub.log.clear()
    fetch(repo, NAMES, Access())
    assert not hub.requests("config.json")  # the other half is downloaded alone


def test_a_cache_of_ones_own_is_used(hub: LoopbackHub, repo: Repo, own_cache: Path, tmp_path: Path) -> None:
    found = fetch(repo, NAMES, Access(cache_dir=tmp_path / "mine"))
    assert all(path.is_relative_to(tmp_path / "mine") for path in found.files.values()) and not own_cache.exists()


def test_without_huggingface_hub_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("huggingface_hub", "huggingface_hub.constants"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingDependencyError, match=r"loading 'alice/toy' from the Hub needs huggingface_hub: pip install .dreamgym\[hub\]"
    ):
        fetch(Repo("alice/toy"), NAMES, Access())


ALONE = """
import sys, socket
for name in ("huggingface_hub", "huggingface_hub.constants", "hf_xet", "httpx2", "httpx", "requests"):
    sys.modules[name] = None  # importing it fails
def refuse(*anything):
    raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
import gymnasium as gym
import dreamgym
from dreamgym import cli, registration
for name in registration.BUNDLED:
    env = gym.make(f"dreamgym/Dream-{name}-v0")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    many = gym.make_vec(f"dreamgym/Dream-{name}-v0", 2)
    many.reset(seed=0)
    many.step(many.action_space.sample())
    assert cli.main(["info", name]) == 0
for call in (
    lambda: dreamgym.WorldModel.from_pretrained("alice/toy"),
    lambda: gym.make("dreamgym/Dream-v0", model="alice/toy"),
    lambda: gym.make_vec("dreamgym/Dream-v0", 2, model="alice/toy"),
    lambda: dreamgym.load_agent("alice/toy", registration.load_model("CartPole")),
    lambda: dreamgym.Replay.from_hub("alice/toy"),
    lambda: registration.load_model("CartPole").push_to_hub("alice/toy", license="mit", allow_unevaluated=True),
):
    try:
        call()
    except dreamgym.errors.MissingDependencyError as error:
        assert "needs huggingface_hub: pip install" in str(error), error
    else:
        raise AssertionError("it opened")
"""


def test_bundled_models_need_neither_network_nor_huggingface_hub() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


# ---- uploads ------------------------------------------------------------------------------------------------------------------


def test_an_upload_is_one_commit_with_its_tag(hub: LoopbackHub, repo: Repo) -> None:
    pushed = upload("alice/toy", {"config.json": b"{ }", "new.txt": b"new"}, tag="v1", message="more", remove=["README.md", "never.was"])
    found = hub.repos["model", "alice/toy"]
    assert found.branches["main"] == found.tags["v1"] == pushed.commit and len(found.commits) == 3
    tree = {path: file.data for path, file in found.commits[pushed.commit].tree.items()}
    assert tree["config.json"] == b"{ }" and tree["new.txt"] == b"new" and "README.md" not in tree and "model.safetensors" in tree
    assert found.commits[pushed.commit].title == "more"


def test_files_are_uploaded_from_where_they_lie(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "any name.bin").write_bytes(b"12345")
    pushed = upload("dreamers/new", {"model.safetensors": tmp_path / "any name.bin"}, private=True, message="first")
    assert hub.repos["model", "dreamers/new"].private and pushed.url == f"{hub.endpoint}/dreamers/new"
    assert hub.repos["model", "dreamers/new"].resolve("main").tree["model.safetensors"].data == b"12345"


# ---- time ---------------------------------------------------------------------------------------------------------------------


def test_every_failure_ends_within_fifteen_seconds_by_the_numbers() -> None:
    """The first try, its repetition, and the question for what would have worked (`_revisions`, `_absent`, `user_of`)."""
    assert questions.FAST + client.PATIENCE + client.PATIENCE / 4 < 15


def test_an_answer_that_does_not_come_is_not_waited_for(hub: LoopbackHub, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.2)
    done = threading.Event()
    monkeypatch.setattr(client._Door, "_info", lambda door: done.wait(20))
    try:
        with pytest.raises(HubUnreachableError, match=r"could not be reached \(TimeoutError: no answer within 0\.2 s\)"):
            fetch(repo, NAMES, Access())
    finally:
        done.set()


class Bar:
    def update(self, n: float | None = 1) -> None: ...


def test_a_transfer_is_waited_for_as_long_as_its_bar_moves() -> None:
    def slow(bar: type) -> str:
        for _ in range(8):
            time.sleep(0.05)
            bar().update(1)
        return "here"

    assert questions.while_it_moves(0.2, Bar, slow) == "here"


def test_a_transfer_that_stands_still_is_given_up() -> None:
    done = threading.Event()
    with pytest.raises(GaveUpError, match="nothing more arrived"):
        questions.while_it_moves(0.1, Bar, lambda bar: done.wait(20))
    done.set()


def test_ctrl_c_passes_untouched_and_leaves_no_half_files(
    hub: LoopbackHub, repo: Repo, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.file_download as file_download

    def interrupted(*anything: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(repo, NAMES, Access())
    assert not list(own_cache.rglob("*.incomplete"))
    assert fetch(repo, NAMES, Access()).files["config.json"].read_bytes() == b"{}"
