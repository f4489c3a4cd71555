"""The one place that writes to the Hub: some files as one commit, or nothing.

Written on huggingface_hub's public functions, as the reading is. Files that the Hub keeps apart are sent first and count for nothing until
the commit names them, so whatever breaks off leaves the repository as it was.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import urllib.parse
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dreamgym.formats.strict_json import quote
from dreamgym.hub.failures import Asked, in_our_words, kinds, may_be_repeated, offline
from dreamgym.hub.impatience import impatient
from dreamgym.hub.questions import PATIENCE, asked_of, huggingface, twice, user_of, within
from dreamgym.hub.repository import Access, Pushed, Repo, is_commit, is_revision, parse_repo

__all__ = ["upload"]

_COMMIT_WITHIN = 30.0  # seconds; whether a commit that was given up came to be is not known, so not too soon
_SLOWEST = 50_000.0  # bytes per second of a line that still counts as one


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
        if private and not twice(PATIENCE, lambda: self.api.repo_info(**self.named, timeout=PATIENCE)).private:
            raise ValueError(f"{page} is public, so private=True cannot be kept; make it private there, or push to another name.")
        refs = twice(PATIENCE, lambda: self.api.list_repo_refs(**self.named))
        if tag is not None and tag in {ref.name for ref in refs.tags}:
            raise ValueError(f"{page} has the tag {quote(tag)} already, and people rely on what it means; choose another.")
        if self.branch not in {ref.name for ref in refs.branches}:
            twice(PATIENCE, lambda: self.api.create_branch(**self.named, branch=self.branch, exist_ok=True))
        head = twice(PATIENCE, lambda: self.api.repo_info(**self.named, revision=self.branch, timeout=PATIENCE))
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
            utils.hf_raise_for_status(utils.get_session().get(url, headers=headers, timeout=PATIENCE))

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
