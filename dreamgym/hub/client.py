"""The one place that talks to the Hub: what a name means there, a few named files of one commit, and one commit up.

Written on huggingface_hub's public functions. Its own retries may take minutes and its downloads are compared by length only, so requests
are asked here first with a limit of time, and what the files hold is checked by whoever reads them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import multiprocessing
import os
import time
import urllib.parse
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from dreamgym.errors import HubUnreachableError, InvalidModelError, ModelLoadError, ModelNotFoundError
from dreamgym.formats.strict_json import escape, quote
from dreamgym.hub.failures import Asked, in_our_words, kinds, may_be_repeated, offline, scrubbed_logs
from dreamgym.hub.impatience import impatient
from dreamgym.hub.questions import PATIENCE, asked_of, huggingface, twice, user_of, while_it_moves, within
from dreamgym.hub.repository import Access, Pushed, Repo, Snapshot, is_commit, is_revision, parse_repo

__all__ = ["Access", "Pushed", "Repo", "Snapshot", "fetch", "parse_repo", "refetch", "upload"]

T = TypeVar("T")

_log = logging.getLogger("dreamgym.hub")
_WORKERS_START_WITHIN = 600.0  # seconds
_COMMIT_WITHIN = 30.0  # seconds; whether a commit that was given up came to be is not known, so not too soon
_SLOWEST = 50_000.0  # bytes per second of a line that still counts as one
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".zip")


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
    if is_commit(repo.revision):
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
        return door.just_resolved(names) or door.download(names)
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
        self.hub = huggingface(f"loading '{repo.repo_id}' from the Hub")
        self.repo, self.access, self.repo_type, self.what = repo, access, repo_type, what
        self.asked = asked_of(self.hub, repo, access, repo_type)
        self.commit: str | None = repo.revision if is_commit(repo.revision) else None
        self.listing: Any = None
        self.by_xet: set[str] = set()  # files that hf_xet carries

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
            if not is_commit(self.listing.sha):
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
            found = self._ask(lambda: self.hub.get_hf_file_metadata(url, timeout=2 * PATIENCE, **self._us))
        except _FileMissing as error:
            raise self._absent(name) from error.__cause__
        if found.commit_hash is None or found.etag is None:
            raise HubUnreachableError(
                f"{self.asked.endpoint} did not answer like a Hugging Face Hub (HF_ENDPOINT={self.asked.endpoint}, or a proxy?)"
            )
        if found.size is None:
            raise HubUnreachableError(f"{self.asked.endpoint} does not tell how large {name} of '{self.repo.repo_id}' is")
        if found.xet_file_data is not None and not self.hub.constants.HF_HUB_DISABLE_XET:
            self.by_xet.add(name)
        size: int = found.size
        return size

    def get_file(self, name: str, commit: str, size: int, *, force: bool = False) -> Path:
        """Download one file; a server that stumbles, or an address that expired, is asked once more."""
        asked = replace(self.asked, doing="downloading", doing_what=f"{name} ({_readable(size)})")
        options = {"filename": name, "revision": commit, "cache_dir": self.cache, "force_download": force}

        def transfer(bar: type | None = None) -> Path:
            with scrubbed_logs(), impatient():
                return Path(self.hub.hf_hub_download(**self._named, **self._us, **options, tqdm_class=bar))

        for attempt in (1, 2):
            try:
                return while_it_moves(PATIENCE, self.hub.utils.tqdm, transfer) if name in self.by_xet else transfer()
            except Exception as error:
                if attempt == 2 or not may_be_repeated(error):
                    raise in_our_words(error, asked) from error
        raise AssertionError("unreachable")

    def _info(self) -> Any:
        api = self.hub.HfApi(**self._us)
        info = api.model_info if self.repo_type == "model" else api.dataset_info
        return info(self.repo.repo_id, revision=self.repo.revision, timeout=2 * PATIENCE)

    def _ask(self, question: Callable[[], T]) -> T:
        """Put one question, twice if it failed fast for a passing reason. Raises our errors."""
        try:
            return twice(PATIENCE, question)
        except Exception as error:
            self._explain(error)

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
            refs = within(PATIENCE / 4, lambda: self.hub.HfApi(**self._us).list_repo_refs(**self._named))
            names = [escape(ref.name) for ref in [*refs.branches, *refs.tags]]
        except Exception:
            return ""
        return f" Branches and tags: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"

    def _absent(self, name: str) -> ModelLoadError:
        """What the repository holds instead of a file that we need."""
        if self.listing is None:
            try:
                self.listing = within(PATIENCE / 4, self._info)
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

    # What a revision meant, as the client notes it in the cache when it is given a branch: for when the Hub is out of reach.

    @property
    def _note(self) -> Path:
        folder = f"{self.repo_type}s--{self.repo.repo_id.replace('/', '--')}"
        return Path(self.cache, folder, "refs", self.repo.revision or "main")

    def just_resolved(self, names: Mapping[str, int]) -> Snapshot | None:
        """What the main process has found out a moment ago, for its workers: eight of them need not ask eight times."""
        if multiprocessing.parent_process() is None:
            return None
        try:
            fresh = time.time() - self._note.stat().st_mtime < _WORKERS_START_WITHIN
        except OSError:
            return None
        return self.cached(names) if fresh else None

    def _remember(self, commit: str) -> None:
        if self.repo.revision == commit:
            return
        try:
            self._note.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._note.with_name(f"{self._note.name}.{os.getpid()}.tmp")
            fresh.write_text(commit)
            os.replace(fresh, self._note)
        except OSError:  # a cache that cannot be written still serves
            _log.debug("could not note which commit of %s is %s", self.repo.repo_id, commit)


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
    if is_commit(repo.revision):
        raise ValueError(f"revision {quote(repo.revision)} is a commit, which cannot be added to; expected a branch.")
    if tag is not None and not is_revision(tag):
        raise ValueError(f"tag {quote(tag)} is not a name; expected letters, digits and ._-/.")
    target = _Target(repo, repo_type, token)
    try:
        head, there = target.prepare(private, tag)
        commit = target.commit(files, [name for name in remove if name in there and name not in files], message, head)
        if tag is not None:
            within(PATIENCE, lambda: target.api.create_tag(**target.named, tag=tag, revision=commit))
    except Exception as error:
        if isinstance(error, ValueError) and "JSONDecodeError" not in kinds(error) and not hasattr(error, "response"):
            raise  # ours, or of files that cannot be shared
        raise in_our_words(error, target.described(error)) from error
    return Pushed(repo.repo_id, commit, target.asked.page)


class _Target:
    """A branch of a repository that something is pushed to."""

    def __init__(self, repo: Repo, repo_type: str, token: str | None) -> None:
        self.hub = huggingface(f"pushing to '{repo.repo_id}'")
        self.asked = asked_of(self.hub, repo, Access(token), repo_type, doing="uploading")
        if self.hub.constants.HF_HUB_OFFLINE:
            raise offline(self.asked, "HF_HUB_OFFLINE=1")
        self.api = self.hub.HfApi(token=token, library_name="dreamgym", library_version=importlib.metadata.version("dreamgym"))
        self.named = {"repo_id": repo.repo_id, "repo_type": repo_type}
        self.branch = repo.revision or "main"

    def prepare(self, private: bool | None, tag: str | None) -> tuple[str, set[str]]:
        """See that repository and branch are there, and as wanted; the branch's commit, and the names in it."""
        page = self.asked.page
        twice(PATIENCE, lambda: self.api.create_repo(**self.named, private=private, exist_ok=True))
        if private and not twice(PATIENCE, lambda: self.api.repo_info(**self.named, timeout=2 * PATIENCE)).private:
            raise ValueError(f"{page} is public, so private=True cannot be kept; make it private there, or push to another name.")
        refs = twice(PATIENCE, lambda: self.api.list_repo_refs(**self.named))
        if tag is not None and tag in {ref.name for ref in refs.tags}:
            raise ValueError(f"{page} has the tag {quote(tag)} already, and people rely on what it means; choose another.")
        if self.branch not in {ref.name for ref in refs.branches}:
            twice(PATIENCE, lambda: self.api.create_branch(**self.named, branch=self.branch, exist_ok=True))
        head = twice(PATIENCE, lambda: self.api.repo_info(**self.named, revision=self.branch, timeout=2 * PATIENCE))
        return head.sha, {sibling.rfilename for sibling in head.siblings or []}

    def commit(self, files: Mapping[str, bytes | Path], stale: Collection[str], message: str, head: str) -> str:
        """Everything as one commit on top of `head`, or nothing."""
        changes = [self.hub.CommitOperationAdd(name, data if isinstance(data, bytes) else str(data)) for name, data in files.items()]
        self._ask_for_xet()
        for change in changes:  # one by one: what the client sends at once it sends from threads, whose waiting nobody could end
            self._send(change)
        changes += [self.hub.CommitOperationDelete(name) for name in stale]
        options = {"commit_message": message, "revision": self.branch, "parent_commit": head}
        commit: str = within(_COMMIT_WITHIN, lambda: self.api.create_commit(**self.named, operations=changes, **options).oid)
        return commit

    def _ask_for_xet(self) -> None:
        """Whether hf_xet may send: it asks by itself, but for minutes, and does not tell a refusal from a server that is down."""
        if self.hub.constants.HF_HUB_DISABLE_XET or importlib.util.find_spec("hf_xet") is None:
            return
        utils, branch = self.hub.utils, urllib.parse.quote(self.branch, safe="")
        url = f"{self.hub.constants.ENDPOINT}/api/{self.asked.repo_type}s/{self.asked.repo_id}/xet-write-token/{branch}"
        headers = utils.build_hf_headers(token=self.api.token, library_name="dreamgym")

        def ask() -> None:
            utils.hf_raise_for_status(utils.get_session().get(url, headers=headers, timeout=2 * PATIENCE))

        try:
            twice(PATIENCE, ask)
        except Exception as error:
            if getattr(getattr(error, "response", None), "status_code", None) != 404:  # a Hub without Xet may keep all files inline
                raise

    def _send(self, change: Any) -> None:
        """Send a file ahead of its commit, if it is one that the Hub keeps apart; a server that stumbles is asked once more."""

        def send() -> None:
            with impatient():
                self.api.preupload_lfs_files(**self.named, additions=[change], revision=self.branch)

        for attempt in (1, 2):
            try:
                return within(PATIENCE + change.upload_info.size / _SLOWEST, send)
            except Exception as error:
                if attempt == 2 or not may_be_repeated(error):
                    raise

    def described(self, error: Exception) -> Asked:
        """For the message: whose token the Hub refused."""
        return replace(self.asked, user=user_of(self.api)) if hasattr(error, "response") else self.asked


class _FileMissing(Exception):
    """The repository has no such file at this commit."""


def _commit_of(path: Path, name: str) -> str:
    """.../snapshots/<commit>/<name>"""
    return path.parents[name.count("/")].name


def _readable(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB" if size >= 1e3 else f"{size} bytes"


def _too_large(where: str, size: int, limit: int) -> InvalidModelError:
    return InvalidModelError(f"{where}: {size} bytes; the limit is {limit}")
