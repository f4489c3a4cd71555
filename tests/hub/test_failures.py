"""Every way in which the Hub can fail us: the error, its words, its time, and never a token or a signed address in it."""

from __future__ import annotations

import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from dreamgym.errors import HubUnreachableError, InvalidModelError, ModelAccessError, ModelLoadError, ModelNotFoundError
from dreamgym.hub import bundle, client
from dreamgym.models.world_model import WorldModel
from tests.hub import toys
from tests.hub.conftest import TOKENS, move_to
from tests.hub.loopback_hub import LoopbackHub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client, about its own calls
NAME = "alice/toy"
WRONG = "hf_" + "nobodys_secret"  # not as it shows in a line of a traceback


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("toy")
    bundle.save(toys.ensemble(), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client would have slept; it does not."""
    naps: list[float] = []
    monkeypatch.setattr(time, "sleep", naps.append)
    return naps


@pytest.fixture
def toy(hub: LoopbackHub, files: dict[str, bytes], slept: list[float]) -> LoopbackHub:
    """The Hub with a model on it."""
    hub.add_repo(NAME, files)
    return hub


def load(**options: Any) -> WorldModel:
    return WorldModel.from_pretrained(NAME, **options)


def failing(call: Callable[[], Any], kind: type[Exception], slept: list[float], capfd: pytest.CaptureFixture[str] | None = None) -> str:
    """The message of the error that a call ends in: of that very kind, in time, and without secrets wherever it is shown."""
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert time.monotonic() - started + sum(slept) < 15
    shown = "".join(traceback.format_exception(caught.value)) + ("" if capfd is None else "".join(capfd.readouterr()))
    assert not [secret for secret in (*TOKENS.values(), WRONG, "sig=", "Bearer ") if secret in shown]
    assert caught.value.__cause__ is not None or "HF_HUB_OFFLINE" in str(caught.value)
    return str(caught.value)


# ---- who may ------------------------------------------------------------------------------------------------------------------


def test_private_without_a_token_looks_like_missing(toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    toy.repos["model", NAME].private = True
    monkeypatch.setenv("HF_TOKEN", "")
    said = failing(load, ModelNotFoundError, slept)
    assert said == f"no model '{NAME}' on {toy.endpoint}, or it is private. Check the name, or log in: hf auth login."


def test_private_with_somebody_elses_token_says_which(toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    toy.repos["model", NAME].private = True
    monkeypatch.setenv("HF_TOKEN", TOKENS["bob"])
    assert failing(load, ModelNotFoundError, slept).endswith("the token in use (HF_TOKEN) has no access.")
    assert load(token=TOKENS["alice"]).model_info["repo"] == NAME
    assert "(passed as token=)" in failing(lambda: load(token=TOKENS["bob"]), ModelNotFoundError, slept)


def test_a_stored_token_is_named_as_that(toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setenv("HF_TOKEN", "")
    stored = Path(constants.HF_TOKEN_PATH)
    stored.parent.mkdir(parents=True, exist_ok=True)
    try:
        stored.write_text(WRONG)
        assert "the token that hf auth login stored is not valid" in failing(load, ModelAccessError, slept)
        toy.repos["model", NAME].private = True
        stored.write_text(TOKENS["bob"])
        assert failing(load, ModelNotFoundError, slept).endswith("the token in use (stored by hf auth login) has no access.")
        stored.write_text(TOKENS["alice"])
        assert load().model_info["repo"] == NAME
    finally:
        stored.unlink()


def test_a_wrong_token_says_where_it_came_from(toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", WRONG)
    said = failing(load, ModelAccessError, slept)
    assert said == "the token in HF_TOKEN is not valid (it also blocks public models): unset HF_TOKEN or hf auth login"
    assert "passed as token=" in failing(lambda: load(token=WRONG), ModelAccessError, slept)


@pytest.mark.parametrize("user", [None, "bob"])
def test_gated_says_where_to_ask(toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch, user: str | None) -> None:
    toy.repos["model", NAME].gated = "manual"
    monkeypatch.setenv("HF_TOKEN", TOKENS[user] if user else "")
    said = failing(load, ModelAccessError, slept)
    assert f"'{NAME}' is gated: ask for access at {toy.endpoint}/{NAME}, then: hf auth login" in said


def test_disabled_is_said(toy: LoopbackHub, slept: list[float]) -> None:
    toy.repos["model", NAME].disabled = True
    assert "has been disabled by Hugging Face" in failing(load, ModelAccessError, slept)


def test_a_missing_revision_names_those_there_are(toy: LoopbackHub, slept: list[float]) -> None:
    toy.repos["model", NAME].tags["v1"] = toy.repos["model", NAME].branches["main"]
    for revision in ("v9", "0" * 40):
        said = failing(lambda revision=revision: load(revision=revision), ModelNotFoundError, slept)  # type: ignore[misc]
        assert said == f"'{NAME}' has no revision '{revision}'. Branches and tags: main, v1"


def test_a_missing_repository(toy: LoopbackHub, slept: list[float]) -> None:
    assert "no model 'alice/none'" in failing(lambda: WorldModel.from_pretrained("alice/none"), ModelNotFoundError, slept)


def test_a_folder_that_was_mistyped_is_thought_of(toy: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(ModelNotFoundError, match=r"A folder is written \./runs/model; there is none with a model\."):
        WorldModel.from_pretrained("runs/model")


@pytest.mark.parametrize(
    ("settings", "token", "kind", "says"),
    [
        ({"private": True}, "", ModelNotFoundError, "or it is private. Check the name, or log in: hf auth login."),
        ({"private": True}, TOKENS["bob"], ModelNotFoundError, "the token in use (HF_TOKEN) has no access."),
        ({"gated": "manual"}, TOKENS["bob"], ModelAccessError, "is gated: ask for access at"),
        ({"disabled": True}, TOKENS["alice"], ModelAccessError, "has been disabled by Hugging Face"),
        ({}, WRONG, ModelAccessError, "the token in HF_TOKEN is not valid"),
    ],
    ids=["private", "another's", "gated", "disabled", "wrong token"],
)
def test_a_pinned_commit_fails_in_the_same_words_though_no_branch_is_asked_for(
    toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], token: str, kind: Any, says: str
) -> None:
    commit = toy.repos["model", NAME].branches["main"]
    monkeypatch.setenv("HF_TOKEN", token)
    for name, value in settings.items():
        setattr(toy.repos["model", NAME], name, value)
    assert says in failing(lambda: load(revision=commit), kind, slept)
    assert not toy.requests("GET /blob")


# ---- the way there ------------------------------------------------------------------------------------------------------------


def test_a_download_that_is_cut_for_good(toy: LoopbackHub, own_cache: Path, slept: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    toy.fail("cut", "GET /blob", after=500, times=-1)
    said = failing(load, HubUnreachableError, slept, capfd)
    assert f"'{NAME}': download of " in said and " kB) broke off (" in said and said.endswith("run again")
    assert not list(own_cache.rglob("*.incomplete"))


def test_a_download_that_is_cut_once_goes_on(toy: LoopbackHub) -> None:
    toy.fail("cut", "GET /blob", after=500)
    assert load().model_info["repo"] == NAME


def test_a_slow_download_is_waited_for_as_long_as_something_arrives(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(client, "PATIENCE", 1.0)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1.0)
    hub.add_repo("alice/large", {"model.safetensors": bytes(500_000)})
    hub.fail("slow", "GET /blob", delay=0.2, times=-1)  # for each 64 KiB
    started = time.monotonic()
    found = client.fetch(client.Repo("alice/large"), {"model.safetensors": 10**6}, client.Access())
    assert time.monotonic() - started > 1.4 and found.files["model.safetensors"].stat().st_size == 500_000
    assert len(hub.requests("GET /blob")) == 1


@pytest.mark.parametrize("match", ["GET /api", "HEAD ", "GET /blob", "GET .*config.json"])
@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_that_stumbles_once_is_asked_again(toy: LoopbackHub, match: str, status: int) -> None:
    fault = toy.fail("status", match, status=status)
    assert load().model_info["repo"] == NAME and fault.times == 0


@pytest.mark.parametrize("match", ["GET /api", "HEAD ", "GET /blob"])
def test_a_server_that_is_down(toy: LoopbackHub, slept: list[float], match: str, capfd: pytest.CaptureFixture[str]) -> None:
    toy.fail("status", match, status=503, times=-1)
    said = failing(load, HubUnreachableError, slept, capfd)
    assert "answered 503" in said and (("run again" in said) if match == "GET /blob" else ("is not in the cache" in said))


@pytest.mark.parametrize("match", ["GET /api", "HEAD "])
def test_connections_that_are_reset(toy: LoopbackHub, slept: list[float], match: str) -> None:
    fault = toy.fail("drop", match)
    assert load().model_info["repo"] == NAME and fault.times == 0
    toy.fail("drop", match, times=-1)
    assert "could not be reached (RemoteProtocolError" in failing(lambda: load(cache_dir="elsewhere"), HubUnreachableError, slept)


def test_downloads_that_are_reset_for_good(toy: LoopbackHub, slept: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    toy.fail("drop", "GET /blob", times=-1)
    said = failing(load, HubUnreachableError, slept, capfd)
    assert "download of " in said and "broke off (" in said and said.endswith("run again")


@pytest.mark.parametrize("match", ["GET /api", "HEAD ", "GET /blob"])
def test_a_rate_limit_of_unknown_length(toy: LoopbackHub, slept: list[float], match: str) -> None:
    toy.fail("status", match, status=429, times=-1)
    assert "rate limited, try again later" in failing(load, HubUnreachableError, slept)
    assert not slept


def test_a_rate_limit_says_when_to_come_back(toy: LoopbackHub, slept: list[float]) -> None:
    toy.rate_limit = (0, 60)
    said = failing(load, HubUnreachableError, slept)
    assert "rate limited, try again in " in said and said.endswith(" s (log in for a higher limit: hf auth login)")


@pytest.mark.parametrize("allowed", range(8))
def test_a_rate_limit_that_is_met_on_the_way_is_not_slept_through(toy: LoopbackHub, slept: list[float], allowed: int) -> None:
    toy.rate_limit = (allowed, 300)
    assert "rate limited, try again in " in failing(load, HubUnreachableError, slept)
    assert not slept


@pytest.mark.parametrize("skip", [3, 4, 5])
def test_a_server_that_goes_down_on_the_way_is_not_waited_for(toy: LoopbackHub, slept: list[float], skip: int) -> None:
    toy.fail("status", "HEAD ", status=503, skip=skip, times=-1)
    assert "broke off (it answered 503); run again" in failing(load, HubUnreachableError, slept)
    assert not slept
    toy.faults.clear()
    toy.fail("status", "HEAD ", status=503, skip=skip, times=2)  # the client asks twice
    assert load().model_info["repo"] == NAME


def test_a_download_that_stands_still_is_given_up(toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    assert constants.HF_HUB_DOWNLOAD_TIMEOUT == 10  # seconds, while nothing arrives
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    release = threading.Event()
    monkeypatch.setattr(time, "sleep", lambda seconds: release.wait(20))  # the Hub's own delay
    toy.fail("slow", "GET /blob", delay=20, times=-1)
    try:
        assert "kB) broke off (nothing more arrived); run again" in failing(load, HubUnreachableError, slept)
    finally:
        release.set()


def test_an_address_that_expired_is_asked_for_anew(toy: LoopbackHub, slept: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    fault = toy.fail("status", "GET /blob", status=403, message="Request has expired")
    assert load().model_info["repo"] == NAME and fault.times == 0
    toy.url_lifetime = -1
    said = failing(lambda: load(cache_dir="elsewhere"), HubUnreachableError, slept, capfd)
    assert "its signed address has expired" in said and "run again" in said


def test_a_corrupt_download_is_healed_or_refused(toy: LoopbackHub, slept: list[float]) -> None:
    toy.fail("corrupt", "GET /blob", after=700)
    load()
    toy.fail("corrupt", "GET /blob", after=700, times=-1)
    with pytest.raises(InvalidModelError, match="damaged or replaced: sha256 is"):
        load(cache_dir="elsewhere")


def test_a_hub_that_hangs(toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.3)
    release = threading.Event()
    monkeypatch.setattr(time, "sleep", lambda seconds: release.wait(20))  # the Hub's own delay
    toy.fail("hang", "HEAD ", delay=20, times=-1)
    try:
        assert "could not be reached (" in failing(load, HubUnreachableError, slept)
    finally:
        release.set()


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# ---- nobody there -------------------------------------------------------------------------------------------------------------


def lead_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if HF_ENDPOINT had been this."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


def test_a_dead_endpoint_without_a_cache(toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    lead_to("http://127.0.0.1:9", monkeypatch)
    for revision in (None, "0" * 40):
        said = failing(lambda revision=revision: load(revision=revision), HubUnreachableError, slept)  # type: ignore[misc]
        assert f"'{NAME}' (revision '{revision or 'main'}') is not in the cache (" in said
        assert "could not be reached (ConnectionRefusedError: " in said and f"hf download {NAME}, or use a bundled model: gym.make(" in said


def test_a_dead_endpoint_with_a_cache_is_one_warning(toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    commit = load().model_info["revision"]
    lead_to("http://127.0.0.1:9", monkeypatch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = gym.make("dreamgym/Dream-v0", model=NAME)
    ours = [str(warning.message) for warning in caught if "cached commit" in str(warning.message)]
    assert len(ours) == 1 and ours[0].startswith(f"using cached commit {commit[:7]} of {NAME} (Hub unreachable), downloaded 2")
    assert env.unwrapped.model.model_info["revision"] == commit
    assert sum(slept) == 0


def test_a_reset_or_a_failing_server_falls_back_to_the_cache(toy: LoopbackHub, files: dict[str, bytes]) -> None:
    commit = load().model_info["revision"]
    toy.commit(NAME, {"config.json": files["config.json"] + b" "})
    for kind, match in (("drop", "HEAD "), ("drop", "GET /api"), ("status", "HEAD "), ("status", "GET /api")):
        toy.fail(kind, match, times=-1)
        with pytest.warns(UserWarning, match="using cached commit"):
            assert load().model_info["revision"] == commit
        toy.faults.clear()
    assert load().model_info["revision"] != commit


def test_a_refusal_does_not_fall_back_to_the_cache(toy: LoopbackHub, slept: list[float]) -> None:
    load()
    failing(lambda: load(token=WRONG), ModelAccessError, slept)


@pytest.fixture
def portal() -> Iterator[str]:
    """A server that answers everything with a page to log in, as in hotels."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = b"<html>Welcome to our hotel</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(page)

        do_HEAD = do_POST = do_GET

        def log_message(self, *anything: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_captive_portal_is_no_hub(toy: LoopbackHub, slept: list[float], portal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lead_to(portal, monkeypatch)
    said = failing(load, HubUnreachableError, slept)
    assert said.startswith(f"{portal} did not answer like a Hugging Face Hub") and f"HF_ENDPOINT={portal}" in said
    with pytest.raises(HubUnreachableError, match="did not answer like a Hugging Face Hub"):
        load(revision="0" * 40)
    with pytest.raises(HubUnreachableError, match="did not answer like a Hugging Face Hub"):
        client.upload(NAME, {"x": b""}, message="x")


def test_an_endpoint_with_a_password_in_it_is_shown_without(monkeypatch: pytest.MonkeyPatch, toy: LoopbackHub, slept: list[float]) -> None:
    lead_to("http://alice:pass-word@127.0.0.1:9", monkeypatch)
    with pytest.raises(HubUnreachableError) as caught:
        load()
    assert "pass-word" not in "".join(traceback.format_exception(caught.value))


# ---- the disk -----------------------------------------------------------------------------------------------------------------


def test_a_full_disk_stays_an_oserror_that_says_what_helps(toy: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.file_download as file_download

    def full(*anything: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", full)
    with pytest.raises(
        OSError, match=r"No space left on device while fetching config\.json \(\d kB\) of 'alice/toy'; set HF_HOME or cache_dir"
    ) as at:
        load()
    assert at.value.errno == 28 and not isinstance(at.value, ModelLoadError) and at.value.filename


def test_a_cache_that_is_a_file_is_named(toy: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        load(cache_dir=tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value) and not isinstance(caught.value, ModelLoadError)


def test_a_cache_that_may_not_be_written_is_named(toy: LoopbackHub, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.file_download as file_download

    def forbidden(*anything: Any, **more: Any) -> None:
        raise PermissionError(13, "Permission denied", str(own_cache / "blobs"))

    monkeypatch.setattr(file_download, "http_get", forbidden)
    with pytest.raises(PermissionError, match="Permission denied while fetching config") as caught:
        load()
    assert str(own_cache) in str(caught.value) and not isinstance(caught.value, ModelLoadError)


# ---- uploads ------------------------------------------------------------------------------------------------------------------


def push(token: str | None = None) -> Any:
    return client.upload(NAME, {"config.json": b"{}", "model.safetensors": bytes(3000)}, token=token, message="x")


def test_a_push_without_the_right_says_who_one_is(toy: LoopbackHub, slept: list[float]) -> None:
    said = failing(lambda: push(TOKENS["bob"]), ModelAccessError, slept)
    assert said.startswith(f"may not write to {toy.endpoint}/{NAME} (the token in use is passed as token=, of bob)") and "'alice'" in said


def test_a_push_with_a_wrong_token(toy: LoopbackHub, slept: list[float]) -> None:
    assert "is not valid" in failing(lambda: push(WRONG), ModelAccessError, slept)


def test_a_push_without_a_token(toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    assert "nobody is logged in: hf auth login" in failing(push, ModelAccessError, slept)


def test_a_branch_that_moved_meanwhile(toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = client._Target.prepare

    def while_somebody_pushes(target: Any, *asked: Any) -> Any:
        found = prepare(target, *asked)
        toy.commit(NAME, {"other.txt": b"first"})
        return found

    monkeypatch.setattr(client._Target, "prepare", while_somebody_pushes)
    assert "someone pushed meanwhile" in failing(push, ModelLoadError, slept)
    assert "other.txt" in toy.repos["model", NAME].resolve("main").tree


def test_a_hub_without_xet_is_told_apart(toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    assert "set HF_HUB_DISABLE_XET=1" in failing(push, HubUnreachableError, slept)


STEPS = ["POST .*/repos/create", "GET .*/refs", "GET /api/models", "POST .*/preupload", "POST .*info/lfs", "PUT /upload"]


@pytest.mark.parametrize("match", [*STEPS, "POST .*/commit"])
@pytest.mark.parametrize("fault", [{"kind": "status", "status": 503}, {"kind": "status", "status": 429}, {"kind": "drop"}], ids=str)
def test_a_push_that_fails_on_the_way_does_not_wait(toy: LoopbackHub, slept: list[float], match: str, fault: dict[str, Any]) -> None:
    before = toy.repos["model", NAME].branches["main"]
    toy.fail(match=match, times=-1, **fault)
    said = failing(push, HubUnreachableError, slept)
    what = {503: "it answered 503", 429: "rate limited, try again later"}.get(fault.get("status", 0), "disconnected")
    assert what in said and not slept
    assert toy.repos["model", NAME].branches["main"] == before


@pytest.mark.parametrize("match", STEPS)
@pytest.mark.parametrize("kind", ["status", "drop"])
def test_a_hub_that_stumbles_once_during_a_push_is_asked_again(toy: LoopbackHub, slept: list[float], match: str, kind: str) -> None:
    fault = toy.fail(kind, match)
    assert push().commit == toy.repos["model", NAME].branches["main"]
    assert fault.times == 0 and not slept


@pytest.mark.parametrize("match", [*STEPS, "POST .*/commit"])
def test_a_push_to_a_hub_that_hangs_is_given_up(toy: LoopbackHub, monkeypatch: pytest.MonkeyPatch, match: str) -> None:
    for name, value in {"PATIENCE": 0.3, "_COMMIT_WITHIN": 0.3, "_SLOWEST": 1e9}.items():
        monkeypatch.setattr(client, name, value)
    release = threading.Event()
    monkeypatch.setattr(time, "sleep", lambda seconds: release.wait(20))  # the Hub's own delay
    toy.fail("hang", match, delay=20, times=-1)
    try:
        assert "could not be reached (" in failing(push, HubUnreachableError, [])
    finally:
        release.set()


def test_a_push_that_meets_a_rate_limit_says_when_to_come_back(toy: LoopbackHub, slept: list[float]) -> None:
    toy.fail("status", "POST .*/preupload", status=429, times=-1, headers={"RateLimit": '"api";r=0;t=200'})
    assert "rate limited, try again in 20" in failing(push, HubUnreachableError, slept)
    assert not slept


def test_a_push_to_a_dead_endpoint(toy: LoopbackHub, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    lead_to("http://127.0.0.1:9", monkeypatch)
    assert "could not be reached (ConnectionRefusedError" in failing(push, HubUnreachableError, slept)


def test_another_machine_is_another_cache(toy: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    move_to(tmp_path / "another", monkeypatch)
    with pytest.raises(HubUnreachableError, match="not in the cache"):
        load(local_files_only=True)
