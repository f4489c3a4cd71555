"""The one place that talks to the Hub: what a name means there, a few named files of one commit, and one commit up.

Written on huggingface_hub's public functions. Its own retries may take minutes and its downloads are compared by length only, so requests
are asked here first with a limit of time, and what the files hold is checked by whoever reads them.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import queue
import re
import threading
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from dreamgym.errors import HubUnreachableError, InvalidModelError, ModelLoadError, ModelNotFoundError, require
from dreamgym.formats.strict_json import escape, quote
from dreamgym.hub.failures import Asked, in_our_words, is_passing, kinds, offline, scrubbed_logs

__all__ = ["Access", "Pushed", "Repo", "Snapshot", "fetch", "parse_repo", "refetch", "upload"]

T = TypeVar("T")

_log = logging.getLogger("dreamgym.hub")
_PATIENCE = 10.0  # seconds for one question; with one repetition of what failed fast, every failure ends within 15
_FAST = 3.0
_COMMIT = re.compile("[0-9a-f]{40}")
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_REPO = re.compile(f"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9_./-]{1,200}")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".zip")


@dataclass(frozen=True)
class Access:
    """How to reach the Hub: token None means HF_TOKEN or what `hf auth login` stored; cache_dir None the Hugging Face cache."""

    token: str | None = field(default=None, repr=False)
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False


@dataclass(frozen=True)
class Repo:
    """A repository's name, and a branch, tag or commit of it; None: the main branch."""

    repo_id: str
    revision: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit in the cache: name -> a plain file, links already resolved. What they hold has not been checked."""

    repo_id: str
    commit: str
    files: dict[str, Path]
    repo_type: str = "model"


@dataclass(frozen=True)
class Pushed:
    """What an upload made: the commit, and the page of the repository."""

    repo_id: str
    commit: str
    url: str


def parse_repo(text: str, revision: str | None = None) -> Repo:
    """Read "user/repo" or "user/repo@revision"; no request is made. Raises ValueError that shows the right form."""
    if not isinstance(text, str):
        raise ValueError(f"the repository is {quote(text)}; expected text like user/repo or user/repo@revision.")
    repo_id, at, written = text.partition("@")
    if len(repo_id) > 96 or not _REPO.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id or repo_id.endswith(".git"):
        raise ValueError(f"{quote(text)} does not name a repository on the Hub; expected user/repo or user/repo@revision.")
    if at and revision is not None and revision != written:
        raise ValueError(f"{quote(text)} names a revision and revision={quote(revision)} another; give one of them.")
    revision = written if at else revision
    if revision is not None and not _is_revision(revision):
        raise ValueError(f"revision {quote(revision)} is not a name; expected a branch, a tag or a commit of 40 hexadecimal digits.")
    return Repo(repo_id, revision)


def _is_revision(revision: Any) -> bool:
    """The client joins it to a path in the cache, so it must not lead out of there."""
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision):
        return False
    return all(part not in ("", ".", "..") and not part.endswith(".lock") for part in revision.split("/"))


# ---- reading ----------------------------------------------------------------------------------------------------------------


def fetch(repo: Repo, names: Mapping[str, int], access: Access, *, repo_type: str = "model", what: str | None = None) -> Snapshot:
    """Files of one commit of a repository, from the cache or downloaded: no other file is asked for, none before its size is known.

    names: file -> most bytes it may have. what: what the repository should be, for messages; "dreamgym model" for models. The revision is
    turned into a commit once. A commit whose files are all in the cache makes no request; where the Hub cannot be reached, what the cache
    holds of that revision is used with a warning.
    Raises ModelNotFoundError, ModelAccessError, HubUnreachableError, InvalidModelError for files that are too large, ValueError for
    impossible names; within 15 s unless a file is on its way.
    """
    door = _Door(repo, access, repo_type, what or f"dreamgym {repo_type}")
    if repo.revision is not None and _COMMIT.fullmatch(repo.revision):
        found = door.cached(names, repo.revision)
        if found is not None:
            return found
    closed = door.closed()
    if closed is not None:
        found = door.cached(names)
        if found is None:
            raise offline(door.asked, closed)
        return found
    try:
        return door.download(names)
    except HubUnreachableError as error:
        found = door.cached(names)
        if found is None:
            raise
        age = door.age(found)
        warnings.warn(f"using cached commit {found.commit[:7]} of {repo.repo_id} (Hub unreachable){age}: {error}", stacklevel=3)
        return found


def refetch(snapshot: Snapshot, name: str, access: Access) -> Path:
    """Download a file of a snapshot again, over what the cache holds of it. Raises HubUnreachableError where nothing may be asked."""
    door = _Door(Repo(snapshot.repo_id, snapshot.commit), access, snapshot.repo_type, f"dreamgym {snapshot.repo_type}")
    closed = door.closed()
    if closed is not None:
        raise offline(door.asked, closed)
    size = door.ask_file(name)
    return door.get_file(name, snapshot.commit, size, force=True).resolve()


class _Door:
    """One repository, seen with one kind of access."""

    def __init__(self, repo: Repo, access: Access, repo_type: str, what: str) -> None:
        if not _REPO.fullmatch(repo.repo_id) or not (repo.revision is None or _is_revision(repo.revision)):
            raise ValueError(f"{quote(repo)} does not name a repository; parse_repo makes one.")
        self.hub = _client(f"loading '{repo.repo_id}' from the Hub")
        self.repo, self.access, self.repo_type, self.what = repo, access, repo_type, what
        self.asked = _asked(self.hub, repo, access, repo_type)
        self.commit: str | None = repo.revision if repo.revision and _COMMIT.fullmatch(repo.revision) else None
        self.listing: Any = None

    # What every call of the client is told.

    @property
    def _named(self) -> dict[str, Any]:
        return {"repo_id": self.repo.repo_id, "repo_type": self.repo_type}

    @property
    def _us(self) -> dict[str, Any]:
        return {"library_name": "dreamgym", "library_version": importlib.metadata.version("dreamgym"), "token": self.access.token}

    def closed(self) -> str | None:
        """Why nothing may be asked of the Hub; None if it may."""
        if self.access.local_files_only:
            return "local_files_only=True"
        return "HF_HUB_OFFLINE=1" if self.hub.constants.HF_HUB_OFFLINE else None

    def cached(self, names: Mapping[str, int], revision: str | None = None) -> Snapshot | None:
        """The files as the cache has them at that revision, without a request; None if one is missing."""
        revision = revision or self.repo.revision or "main"
        found: dict[str, Path] = {}
        for name in names:
            path = self.hub.try_to_load_from_cache(
                self.repo.repo_id, name, cache_dir=self.cache, revision=revision, repo_type=self.repo_type
            )
            if not isinstance(path, str):
                return None
            found[name] = Path(path)
        commits = {_commit_of(path, name) for name, path in found.items()}
        if len(commits) != 1:  # the branch moved while we looked
            return None
        return self._snapshot(commits.pop(), found, names)

    def age(self, snapshot: Snapshot) -> str:
        """When the cache got these files, for the warning."""
        times = [path.stat().st_mtime for path in snapshot.files.values()]
        return f", downloaded {datetime.fromtimestamp(max(times), timezone.utc):%Y-%m-%d}" if times else ""

    @property
    def cache(self) -> str:
        """The folder of the cache."""
        chosen = self.access.cache_dir if self.access.cache_dir is not None else self.hub.constants.HF_HUB_CACHE
        return str(Path(chosen).expanduser().absolute())

    def download(self, names: Mapping[str, int]) -> Snapshot:
        """Resolve, look at every size, then download what the cache lacks."""
        commit = self.resolve()
        found = self.cached(names, commit)
        if found is None:
            sizes = {name: self.ask_file(name) for name in names if self.cached({name: names[name]}, commit) is None}
            for name, size in sizes.items():
                if size > names[name]:
                    raise _too_large(f"{self.repo.repo_id}/{name}", size, names[name])
            found = self._snapshot(commit, {name: self.get_file(name, commit, sizes.get(name, 0)) for name in names}, names)
        self._remember(commit)
        return found

    def resolve(self) -> str:
        """The commit that the revision means now."""
        if self.commit is None:
            self.listing = self._ask(self._info)
            if not isinstance(self.listing.sha, str) or not _COMMIT.fullmatch(self.listing.sha):
                raise HubUnreachableError(f"{self.asked.endpoint} did not answer like a Hugging Face Hub: it names no commit")
            self.commit = self.listing.sha
            if self.repo.revision is None:
                _log.info("%s resolved to %s; pass revision= to pin it", self.repo.repo_id, self.commit)
        return self.commit

    def ask_file(self, name: str) -> int:
        """The size of a file, which also tells whether it may be read. The client's own request for it would wait for minutes."""
        commit = self.resolve()
        url = self.hub.hf_hub_url(**self._named, filename=name, revision=commit)
        try:
            found = self._ask(lambda: self.hub.get_hf_file_metadata(url, timeout=_PATIENCE, **self._us))
        except _FileMissing as error:
            raise self._absent(name) from error.__cause__
        if found.commit_hash is None or found.etag is None:
            raise HubUnreachableError(
                f"{self.asked.endpoint} did not answer like a Hugging Face Hub (HF_ENDPOINT={self.asked.endpoint}, or a proxy?)"
            )
        if found.size is None:
            raise HubUnreachableError(f"{self.asked.endpoint} does not tell how large {name} of '{self.repo.repo_id}' is")
        size: int = found.size
        return size

    def get_file(self, name: str, commit: str, size: int, *, force: bool = False) -> Path:
        """Download one file; a server that stumbles, or an address that expired, is asked once more."""
        asked = replace(self.asked, doing="downloading", doing_what=f"{name} ({_readable(size)})")
        for attempt in (1, 2):
            try:
                with scrubbed_logs():
                    return Path(
                        self.hub.hf_hub_download(
                            **self._named, **self._us, filename=name, revision=commit, cache_dir=self.cache, force_download=force
                        )
                    )
            except Exception as error:
                if attempt == 2 or "HfHubHTTPError" not in kinds(error):
                    raise in_our_words(error, asked) from error
        raise AssertionError("unreachable")

    def _info(self) -> Any:
        api = self.hub.HfApi(**self._us)
        info = api.model_info if self.repo_type == "model" else api.dataset_info
        return info(self.repo.repo_id, revision=self.repo.revision, timeout=_PATIENCE)

    def _ask(self, question: Callable[[], T]) -> T:
        """Put one question, twice if it failed fast for a passing reason. Raises our errors."""
        for attempt in (1, 2):
            started = time.monotonic()
            try:
                return _within(_PATIENCE, question)
            except Exception as error:
                if attempt == 1 and is_passing(error) and time.monotonic() - started < _FAST:
                    continue
                self._explain(error)
        raise AssertionError("unreachable")

    def _explain(self, error: Exception) -> NoReturn:
        if "EntryNotFoundError" in kinds(error):
            raise _FileMissing from error
        ours = in_our_words(error, self.asked)
        if "RevisionNotFoundError" in kinds(error):
            ours = ModelNotFoundError(f"{ours}{self._revisions()}")
        raise ours from error

    def _revisions(self) -> str:
        """Names that would have worked, if the Hub tells them."""
        try:
            refs = _within(_PATIENCE / 4, lambda: self.hub.HfApi(**self._us).list_repo_refs(**self._named))
            names = [escape(ref.name) for ref in [*refs.branches, *refs.tags]]
        except Exception:
            return ""
        return f" Branches and tags: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"

    def _absent(self, name: str) -> ModelLoadError:
        """What the repository holds instead of a file that we need."""
        if self.listing is None:
            try:
                self.listing = _within(_PATIENCE / 4, self._info)
            except Exception:
                self.listing = None
        there = [sibling.rfilename for sibling in getattr(self.listing, "siblings", None) or []]
        pickles = sorted(escape(path) for path in there if path.endswith(_PICKLES))
        library = getattr(self.listing, "library_name", None)
        message = f"'{self.repo.repo_id}' is not a {self.what}: it has no {name}"
        if pickles:
            return InvalidModelError(f"{message} (found {', '.join(pickles[:5])}; dreamgym does not load pickle files)")
        return ModelNotFoundError(f"{message} (its library is {quote(library)})" if library else message)

    def _snapshot(self, commit: str, paths: Mapping[str, Path], names: Mapping[str, int]) -> Snapshot:
        """Links of the cache resolved; the sizes on the disk count, whatever was announced."""
        files = {name: path.resolve() for name, path in paths.items()}
        for name, path in files.items():
            if path.stat().st_size > names[name]:
                raise _too_large(f"{self.repo.repo_id}/{name}", path.stat().st_size, names[name])
        return Snapshot(self.repo.repo_id, commit, files, self.repo_type)

    def _remember(self, commit: str) -> None:
        """Note in the cache, as the client does when it is given a branch, what the revision meant, for when the Hub is out of reach."""
        revision = self.repo.revision or "main"
        folder = f"{self.repo_type}s--{self.repo.repo_id.replace('/', '--')}"
        note = Path(self.cache, folder, "refs", revision)
        if revision == commit:
            return
        try:
            if note.is_file() and note.read_text() == commit:
                return
            note.parent.mkdir(parents=True, exist_ok=True)
            fresh = note.with_name(f"{note.name}.{os.getpid()}.tmp")
            fresh.write_text(commit)
            os.replace(fresh, note)
        except OSError:  # a cache that cannot be written still serves
            _log.debug("could not note that %s of %s is %s", revision, self.repo.repo_id, commit)


# ---- writing ----------------------------------------------------------------------------------------------------------------


def upload(
    repo_id: str,
    files: Mapping[str, bytes | Path],
    *,
    repo_type: str = "model",
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    tag: str | None = None,
    message: str,
    remove: Collection[str] = (),
) -> Pushed:
    """Put files into a repository as one commit, creating the repository and the branch if need be, and tag that commit.

    files: name -> what it shall hold; remove: names to delete if they are there, so that the repository holds nothing stale. private None
    leaves a repository as it is and makes a new one public. The branch must not move meanwhile, the tag must be new.
    Raises ValueError for impossible names, a tag that is there, or private=True for a public repository, before anything is sent;
    ModelAccessError, HubUnreachableError, ModelLoadError if somebody else pushed meanwhile.
    """
    repo = parse_repo(repo_id, revision)
    if repo.revision is not None and _COMMIT.fullmatch(repo.revision):
        raise ValueError(f"revision {quote(repo.revision)} is a commit, which cannot be added to; expected a branch.")
    if tag is not None and not _is_revision(tag):
        raise ValueError(f"tag {quote(tag)} is not a name; expected letters, digits and ._-/.")
    hub = _client(f"pushing to '{repo.repo_id}'")
    asked = _asked(hub, repo, Access(token), repo_type, doing="uploading")
    if hub.constants.HF_HUB_OFFLINE:
        raise offline(asked, "HF_HUB_OFFLINE=1")
    api = hub.HfApi(token=token, library_name="dreamgym", library_version=importlib.metadata.version("dreamgym"))
    named = {"repo_id": repo.repo_id, "repo_type": repo_type}
    try:
        return _push(hub, api, named, repo, files, remove, private=private, tag=tag, message=message, page=asked.page)
    except (ModelLoadError, ValueError, KeyboardInterrupt) as error:
        if "HFValidationError" in kinds(error) or _is_http(error):
            raise in_our_words(error, asked) from error
        raise
    except Exception as error:
        asked = replace(asked, user=_user(api)) if _is_http(error) else asked
        raise in_our_words(error, asked) from error


def _push(
    hub: Any,
    api: Any,
    named: dict[str, str],
    repo: Repo,
    files: Mapping[str, bytes | Path],
    remove: Collection[str],
    *,
    private: bool | None,
    tag: str | None,
    message: str,
    page: str,
) -> Pushed:
    branch = repo.revision or "main"
    _within(_PATIENCE, lambda: api.create_repo(**named, private=private, exist_ok=True))
    if private and not _within(_PATIENCE, lambda: api.repo_info(**named, timeout=_PATIENCE)).private:
        raise ValueError(f"{page} is public, so private=True cannot be kept; make it private there, or push to another name.")
    refs = _within(_PATIENCE, lambda: api.list_repo_refs(**named))
    if tag is not None and tag in {ref.name for ref in refs.tags}:
        raise ValueError(f"{page} has the tag {quote(tag)} already, and people rely on what it means; choose another.")
    if branch not in {ref.name for ref in refs.branches}:
        _within(_PATIENCE, lambda: api.create_branch(**named, branch=branch, exist_ok=True))
    head = _within(_PATIENCE, lambda: api.repo_info(**named, revision=branch, timeout=_PATIENCE))
    there = {sibling.rfilename for sibling in head.siblings or []}
    changes = [hub.CommitOperationAdd(name, data if isinstance(data, bytes) else str(data)) for name, data in files.items()]
    changes += [hub.CommitOperationDelete(name) for name in remove if name in there and name not in files]
    with scrubbed_logs():
        made = api.create_commit(**named, operations=changes, commit_message=message, revision=branch, parent_commit=head.sha)
    if tag is not None:
        _within(_PATIENCE, lambda: api.create_tag(**named, tag=tag, revision=made.oid))
    return Pushed(repo.repo_id, made.oid, page)


def _is_http(error: BaseException) -> bool:
    return getattr(error, "response", None) is not None


def _user(api: Any) -> str | None:
    """Whose token it is, for a message; whoever cannot be asked is not named."""
    try:
        return escape(str(_within(_PATIENCE / 4, api.whoami)["name"]))
    except Exception:
        return None


# ---- asking -----------------------------------------------------------------------------------------------------------------


class _FileMissing(Exception):
    """The repository has no such file at this commit."""


def _client(purpose: str) -> Any:
    """huggingface_hub, with its settings as an attribute. Raises MissingDependencyError."""
    require("huggingface_hub.constants", extra="hub", purpose=purpose)
    return require("huggingface_hub", extra="hub", purpose=purpose)


def _asked(hub: Any, repo: Repo, access: Access, repo_type: str, doing: str = "asking") -> Asked:
    chosen = access.cache_dir if access.cache_dir is not None else hub.constants.HF_HUB_CACHE
    return Asked(
        repo.repo_id,
        repo.revision,
        repo_type,
        endpoint=re.sub(r"//[^/@]*@", "//", str(hub.constants.ENDPOINT)).partition("?")[0].rstrip("/"),
        token=_token_in_use(hub, access.token),
        cache=escape(str(chosen)),
        doing=doing,
    )


def _token_in_use(hub: Any, given: str | None) -> str | None:
    """Which token is sent, never what it is."""
    if given:
        return "passed as token="
    if given is False or hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    if os.environ.get("HF_TOKEN", "").strip() or os.environ.get("HUGGING_FACE_HUB_TOKEN", "").strip():
        return "HF_TOKEN"
    return "stored by hf auth login" if hub.get_token() else None


def _commit_of(path: Path, name: str) -> str:
    """.../snapshots/<commit>/<name>"""
    return path.parents[name.count("/")].name


def _readable(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB" if size >= 1e3 else f"{size} bytes"


def _too_large(where: str, size: int, limit: int) -> InvalidModelError:
    return InvalidModelError(f"{where}: {size} bytes; the limit is {limit}")


def _within(seconds: float, question: Callable[[], T]) -> T:
    """Ask in a thread of its own and wait no longer: the client counts each wait alone, and looking up a name has no limit at all."""
    answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with scrubbed_logs():
                answers.put((question(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=ask, name="dreamgym-hub", daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]
